"""The events of a room over HTTP, as they happen and as they were missed."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic
from uuid import UUID

import msgspec
from aiohttp import web

from gembackend.chatrooms import store as chatrooms
from gembackend.live.feed import Ear, Feed
from gembackend.messages import store
from gembackend.messages.story import Event, Place, Story, parse_place
from gembackend.plumbing import logs, metrics
from gembackend.plumbing.faults import Fault, invalid, not_found
from gembackend.plumbing.postgres import Database
from gembackend.web.events import LAST_EVENT_ID, MEDIA_TYPE, EventStream
from gembackend.web.params import PREFER, path_id, prefer_wait, preference_applied
from gembackend.web.routing import Route
from gembackend.web.session import renew_session, session_of

STREAMS_OF_A_USER = 20
"""How many streams one user may have open in one process."""
CHECK_SECONDS = 2.0
"""How often a quiet stream looks whether its session lives and its client is there."""
BEAT_SECONDS = 15.0
PAGE = 100

log = logs.logger(__name__)


class EventRoutes:
    """The stream of a room."""

    def __init__(self, database: Database, feed: Feed) -> None:
        self._database = database
        self._feed = feed
        self._open: Counter[UUID] = Counter()

    def table(self) -> list[Route]:
        """What is where."""
        return [
            Route(
                "GET",
                "/v1/chatroom/{chatroom_id}/events",
                self.events,
                "What happens in a chatroom, as it happens",
                stream=True,
                media=(MEDIA_TYPE,),
                example=_EXAMPLE,
                parameters=(LAST_EVENT_ID, PREFER),
                headers=("Preference-Applied",),
                errors=("validation_failed", "too_many_streams", "shutting_down"),
                group="Messages",
                description=_DESCRIPTION,
            )
        ]

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Tell a listener what happens in a room until it hangs up, its session ends, or the room is deleted."""
        user_id, chatroom_id = session_of(request).user_id, path_id(request, "chatroom_id", "chatroom")
        stream = EventStream(request, preference_applied(request))
        with self._seat(user_id), self._feed.listen(chatroom_id) as ear:
            if ear.closed:
                raise Fault("shutting_down", "This process is shutting down; try again.", retry_after=1)
            story = Story(await self._place(request, user_id, chatroom_id))
            await stream.open(gone=ear.rouse)
            metrics.STREAMS_OPEN.inc()
            begun = monotonic()
            reason = "error"
            try:
                reason = await self._follow(request, stream, ear, story)
            finally:
                metrics.STREAMS_OPEN.dec()
                metrics.STREAMS_CLOSED.labels(reason).inc()
                log.info("stream_closed", reason=reason, seconds=round(monotonic() - begun, 1))
        return stream.response

    async def _place(self, request: web.Request, user_id: UUID, chatroom_id: UUID) -> Place:
        """Where this listener is in the story: where it was, or at its beginning of what has not ended."""
        async with self._database.connection() as connection:
            found = await store.starting_place(connection, user_id, chatroom_id)
        if found is None:
            raise not_found("chatroom")
        last, start = found
        given = request.headers.getall("Last-Event-ID", [])
        if not any(given):
            return start
        place = parse_place(given[0]) if len(given) == 1 else None
        if place is None or max(place.known, place.ended) > last:
            raise invalid("Last-Event-ID", "must be the id of an event of this chatroom")
        return place

    async def _follow(self, request: web.Request, stream: EventStream, ear: Ear, story: Story) -> str:
        """Tell the story as it unfolds; the word for why it was broken off."""
        changed, beaten, wait = True, monotonic(), prefer_wait(request)
        until = inf if wait is None else monotonic() + wait
        while True:
            try:
                await renew_session(request)
                if changed and not await self._tell(request, stream, story):
                    return "room_deleted"
                changed = False
            except Fault as fault:
                if fault.code.name == "unauthorized":
                    return "session_ended"
            if story.speaking is not None:
                _add(stream, story.hear(ear.text(*story.speaking)))
            await stream.flush()
            if monotonic() - beaten > BEAT_SECONDS:
                beaten = monotonic()
                await stream.beat()
            if not stream.connected:
                return "client_gone"
            if ear.closed:
                return "shutting_down"
            if (left := until - monotonic()) <= 0 and not changed:
                return "time_over"
            changed = await ear.heard(min(left, CHECK_SECONDS) if left > 0 else CHECK_SECONDS) or changed

    async def _tell(self, request: web.Request, stream: EventStream, story: Story) -> bool:
        """Read what the listener has not been told and send it; tells whether there still is such a room."""
        user_id, chatroom_id = session_of(request).user_id, path_id(request, "chatroom_id", "chatroom")
        first = behind = story.place.ended
        while True:
            async with self._database.connection() as connection:
                entries, more = await store.story(connection, user_id, chatroom_id, behind, PAGE)
                if not entries and not await chatrooms.exists(connection, user_id, chatroom_id):
                    return False
            if behind == first:
                story.begin()
            _add(stream, story.read(entries))
            if not more or not stream.connected:
                return True
            behind = entries[-1].sequence
            await stream.flush()

    @contextmanager
    def _seat(self, user_id: UUID) -> Iterator[None]:
        """One of the streams that a user may have; raises Fault when all are taken."""
        if self._open[user_id] >= STREAMS_OF_A_USER:
            raise Fault("too_many_streams", f"At most {STREAMS_OF_A_USER} event streams may be open.", retry_after=5)
        self._open[user_id] += 1
        try:
            yield
        finally:
            self._open[user_id] -= 1
            if not self._open[user_id]:
                del self._open[user_id]


def _add(stream: EventStream, events: Iterable[Event]) -> None:
    for event in events:
        metrics.STREAM_EVENTS.labels(event.name).inc()
        stream.add(event.name, str(event.place), msgspec.json.encode(event.data))


_DESCRIPTION = """\
Server-sent events, for as long as the client listens: first every prompt that has not ended, then all that happens.

| event | data | when |
| --- | --- | --- |
| `prompt.queued` | Prompt | it was accepted |
| `prompt.running` | Prompt | Gemini is asked; what an earlier attempt said does not count any more |
| `reply.delta` | `{prompt_id, text}` | more of the reply; from `prompt.running` on the texts add up to it |
| `prompt.answered`, `prompt.failed`, `prompt.cancelled` | Prompt | it has ended |

Every event has an `id`. A client that comes back with the last one in `Last-Event-ID` is told the rest, without loss or
repeat, by whichever process it reaches; with `0-0` it is told everything from the room's beginning. The stream ends
when the session does, when the room is deleted, when the process shuts down, and with `Prefer: wait=N` after N seconds
(0: as soon as all is told that is known)."""

_EXAMPLE = """\
id: 1-0~1:1:14
event: reply.delta
data: {"prompt_id":"01980f5d-ac96-774b-bcce-b302099a8058","text":"Because air sc"}

"""
