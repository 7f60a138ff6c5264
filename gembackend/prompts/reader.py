"""Reads hints from the stream and claims what they point at."""

from collections import defaultdict
from uuid import UUID

from gembackend.actors import Actor
from gembackend.plumbing import logs
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.outages import Outages
from gembackend.plumbing.redis import OUTAGES
from gembackend.plumbing.redis_state import RedisState
from gembackend.prompts.claims import Claims
from gembackend.prompts.pool import WorkerPool
from gembackend.prompts.stream import FROM_THE_START, Hint, Stream
from gembackend.prompts.writer import Done, StreamWriter, Wake

log = logs.logger(__name__)

PAUSE_SECONDS = 0.25
AGAIN_SECONDS = 0.25
"""When to look again at a prompt that waits because another suspect is running, or because its slot is taken."""


class Reader(Actor):
    """The one reader of this process: as many hints as there are free slots, one claim for them all.

    It is never cancelled in the middle of a read, and after any trouble it first reads again what it was given but
    has not acknowledged. A hint for a room that gives nothing has served: whoever holds the room looks for its next
    prompt after committing.
    """

    def __init__(
        self, stream: Stream, state: RedisState, claims: Claims, pool: WorkerPool, writer: StreamWriter
    ) -> None:
        super().__init__("reader")
        self._stream = stream
        self._state = state
        self._claims = claims
        self._pool = pool
        self._writer = writer
        self._outages = Outages()

    async def run(self) -> None:
        """Read and claim until told to stop."""
        pending_after: str | None = FROM_THE_START
        while not self.stopping.is_set():
            try:
                if pending_after == FROM_THE_START:
                    await self._stream.ensure_group()
                free = await self._pool.vacancy(1.0)
                if not free or self.stopping.is_set():
                    continue
                hints = await self._stream.read(free, pending_after)
                self._state.well("reading")
                if pending_after is not None:
                    pending_after = hints[-1].entry_id if hints else None
                if hints:
                    await self._take(hints)
                self._waits(None)
            except Fault as fault:
                pending_after = FROM_THE_START
                self._waits(fault)
                await self.pause(PAUSE_SECONDS)
            except OUTAGES as error:
                pending_after = FROM_THE_START
                self._state.failed("reading", error)
                await self.pause(PAUSE_SECONDS)

    async def _take(self, hints: list[Hint]) -> None:
        rooms: defaultdict[UUID, list[str]] = defaultdict(list)
        served: list[str] = []
        for hint in hints:
            if hint.chatroom_id is None:
                served.append(hint.entry_id)
            else:
                rooms[hint.chatroom_id].append(hint.entry_id)
        async with self._pool.claiming:
            free = max(0, self._pool.free())
            chosen, beyond = list(rooms)[:free], list(rooms)[free:]
            for claimed in await self._claims.claim(chosen, suspects=self._pool.suspects_welcome()):
                self._pool.begin(claimed, tuple(rooms.pop(claimed.chatroom_id)))
        if beyond or (rooms and not self._pool.suspects_welcome()):
            for chatroom_id in await self._claims.due(list(rooms)):
                self._writer.tell_later(AGAIN_SECONDS, Wake(chatroom_id, "again"))
        served += [entry_id for entry_ids in rooms.values() for entry_id in entry_ids]
        if served:
            self._writer.tell(Done(tuple(served)))

    def _waits(self, fault: Fault | None) -> None:
        """Say so when claiming is no longer possible, and when it is again."""
        if fault is None:
            if self._outages.works():
                log.info("reader_goes_on")
        elif self._outages.failed(fault.code.name):
            log.warning("reader_waits", error=fault.code.name)
