"""The one writer to Redis: hints, acknowledgements, finish notices and the feed, gathered into pipelines."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from gembackend.actors import Actor, Mailbox, MailboxClosed, MailboxFull
from gembackend.plumbing import logs, metrics
from gembackend.plumbing.redis import OUTAGES
from gembackend.plumbing.redis_state import RedisState
from gembackend.prompts.stream import Stream

log = logs.logger(__name__)

CAPACITY = 20_000
BATCH = 512
PAUSE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Wake:
    """A room may have work: add a hint. `sender` is for the metric."""

    chatroom_id: UUID
    sender: str


@dataclass(frozen=True, slots=True)
class Done:
    """These stream entries have served."""

    entry_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """These prompts have ended; whoever waits for them in any process wants to know."""

    prompt_ids: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Cast:
    """A message of the feed, for every process."""

    payload: bytes


Note = Wake | Done | Finished | Cast


class StreamWriter(Actor):
    """Takes notes and writes them to Redis, many in one round trip.

    While Redis is away hints and notices are dropped, because the finder and the polls of `live` make up for them;
    acknowledgements are kept until they are through.
    """

    def __init__(self, stream: Stream, state: RedisState) -> None:
        super().__init__("stream-writer")
        self._stream = stream
        self._state = state
        self._mailbox: Mailbox[Note] = Mailbox(CAPACITY)
        self._unacknowledged: list[str] = []
        self._kept_back: Note | None = None

    def tell(self, note: Note) -> None:
        """Write this soon; dropped when there is no room for it, or no writer any more."""
        try:
            self._mailbox.tell(note)
        except (MailboxFull, MailboxClosed):
            if isinstance(note, Wake):
                metrics.HINTS_DROPPED.inc()

    def cast(self, payload: bytes) -> None:
        """Send news of the feed soon, or never."""
        self.tell(Cast(payload))

    def tell_later(self, seconds: float, note: Note) -> None:
        """Write this after a while; forgotten when the writer stops before, for the sweeper to find."""
        asyncio.get_running_loop().call_later(seconds, self.tell, note)

    def wind_down(self) -> None:
        """Write what has been told, then end."""
        self._mailbox.close()

    async def run(self) -> None:
        """Write in batches until closed and empty."""
        while batch := await self._batch():
            await self._write(batch)
            if self._kept_back is not None and await self.pause(PAUSE_SECONDS):
                self._mailbox.abandon()
        if self._unacknowledged:
            await self._write([])

    async def teardown(self) -> None:
        """Leave the group, if nothing is held any more."""
        if not self.stopping.is_set():
            return
        try:
            left = await self._stream.leave()
            log.info("consumer_left", consumer=self._stream.consumer, removed=left)
        except OUTAGES as error:
            log.warning("consumer_not_left", error=type(error).__name__)

    async def _batch(self) -> Sequence[Note]:
        """What has been told; if nothing and Redis was away, a note that it did not take, to see whether it is back."""
        if self._kept_back is not None and not self._mailbox.closed and not len(self._mailbox):
            return [self._kept_back]
        return await self._mailbox.drain(BATCH)

    async def _write(self, batch: Sequence[Note]) -> None:
        hints = {note.chatroom_id: note.sender for note in batch if isinstance(note, Wake)}
        for note in batch:
            if isinstance(note, Done):
                self._unacknowledged.extend(note.entry_ids)
        finished = [prompt_id for note in batch if isinstance(note, Finished) for prompt_id in note.prompt_ids]
        casts = [note.payload for note in batch if isinstance(note, Cast)]
        try:
            await self._stream.write(hints, self._unacknowledged, finished, casts)
        except OUTAGES as error:
            self._state.failed("writing", error)
            self._kept_back = _trial(batch)
            metrics.HINTS_DROPPED.inc(len(hints))
            del self._unacknowledged[:-CAPACITY]
            return
        self._state.well("writing")
        self._kept_back = None
        self._unacknowledged.clear()
        for sender in hints.values():
            metrics.HINTS_SENT.labels(sender).inc()


def _trial(batch: Sequence[Note]) -> Note:
    """What to ask Redis again with, of what it did not take: a hint at best, and never an acknowledgement twice.

    A batch of nothing but acknowledgements, which are kept elsewhere, is asked again with those alone.
    """
    others = [note for note in batch if not isinstance(note, Done)]
    return next((note for note in others if isinstance(note, Wake)), others[0] if others else Done(()))
