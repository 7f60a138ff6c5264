"""Finds what was overlooked: lost hints, dead processes, a Redis that lost its data."""

from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import TypeVar
from uuid import UUID

from gembackend.actors import Periodic
from gembackend.plumbing import logs, metrics
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database
from gembackend.plumbing.redis import OUTAGES
from gembackend.plumbing.redis_state import RedisState
from gembackend.prompts import sweep_store as store
from gembackend.prompts.admission import Admission
from gembackend.prompts.stream import Stream
from gembackend.prompts.sweep_store import Behind
from gembackend.prompts.writer import Done, StreamWriter, Wake

log = logs.logger(__name__)
T = TypeVar("T")

INTERVAL_SECONDS = 1.0
OVERLOOKED_SECONDS = 2.0
"""A due head that nobody has claimed for so long needs a new hint."""
AGAIN_SECONDS = 10.0
"""A room that still waits for the same reason is hinted again after this, or after a lease if that is shorter: it may
only be waiting for a free slot."""
MOST_ROOMS = 1000
STRANDED_MARGIN_SECONDS = 5.0
BURY_SECONDS = 300.0


LEAD_SECONDS = 2.5
"""How long a leader leads without asking again: so much later another takes over when it has died."""
TASK = "sweep"


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one turn found; only the leader among all processes hints."""

    led: bool
    hinted: int = 0
    stranded: int = 0


class Sweeper(Periodic):
    """Every second counts the backlog and, when it is the leader, hints what was overlooked.

    The steps that need Redis stand alone: one that fails is told to `state`, and the next one is tried all the same.
    """

    def __init__(
        self,
        database: Database,
        stream: Stream,
        state: RedisState,
        writer: StreamWriter,
        admission: Admission,
        lease_seconds: float,
    ) -> None:
        super().__init__("sweeper", INTERVAL_SECONDS, expected=(Fault,))
        self._database = database
        self._stream = stream
        self._state = state
        self._writer = writer
        self._admission = admission
        self._stranded_seconds = lease_seconds + STRANDED_MARGIN_SECONDS
        self._again_seconds = min(AGAIN_SECONDS, lease_seconds)
        self._hinted: dict[tuple[UUID, datetime], float] = {}
        self._epoch: str | None = None
        self._behind: Behind | None = None

    async def run_once(self) -> Sweep:
        """One turn; raises Fault when PostgreSQL is away."""
        await self._count()
        lost_data = await self._done("epoch", self._redis_lost_data(), otherwise=False)
        waiting = await self._waiting(0.0 if lost_data else OVERLOOKED_SECONDS)
        if waiting is None:
            return Sweep(led=False)
        metrics.SWEEPS.inc()
        hinted = self._hint(waiting)
        stranded = await self._done("stranded", self._free_stranded(), otherwise=0)
        await self._done("consumers", self._stream.bury_consumers(BURY_SECONDS), otherwise=0)
        if hinted or stranded:
            log.info("swept", hinted=hinted, stranded=stranded, lost_data=lost_data)
        return Sweep(True, hinted, stranded)

    async def teardown(self) -> None:
        """Let another process lead at once."""
        if self.stopping.is_set():
            with suppress(Fault):
                async with self._database.connection() as connection:
                    await store.resign(connection, TASK, self._stream.consumer)

    async def _done(self, step: str, work: Awaitable[T], otherwise: T) -> T:
        """What a step with Redis gave, or `otherwise` when it failed."""
        try:
            done = await work
        except OUTAGES as error:
            self._state.failed(step, error)
            return otherwise
        self._state.well(step)
        return done

    async def _count(self) -> None:
        """Tell admission and the metrics how much is waiting."""
        async with self._database.connection() as connection:
            backlog = await store.backlog(connection)
        self._admission.counted(backlog.unfinished)
        metrics.QUEUE_DEPTH.set(backlog.unfinished)
        metrics.QUEUE_OLDEST_SECONDS.set(backlog.oldest_seconds)

    async def _waiting(self, waited: float) -> list[tuple[UUID, datetime]] | None:
        """The rooms that have waited so long, some of them if they are many; None when another process leads."""
        async with self._database.transaction() as connection:
            if not await store.lead(connection, TASK, self._stream.consumer, LEAD_SECONDS):
                self._behind = None
                return None
            found = await store.waiting_rooms(connection, waited, MOST_ROOMS, self._behind)
        self._behind = found.behind
        return found.rooms

    async def _redis_lost_data(self) -> bool:
        """Whether Redis has been emptied since the last turn; then no room counts as hinted any more."""
        epoch = await self._stream.epoch()
        lost = self._epoch is not None and epoch != self._epoch
        self._epoch = epoch
        if lost:
            log.warning("redis_lost_data")
            self._hinted.clear()
            await self._stream.ensure_group()
        return lost

    def _hint(self, waiting: list[tuple[UUID, datetime]]) -> int:
        now = monotonic()
        self._hinted = {wait: at for wait, at in self._hinted.items() if now - at < self._again_seconds}
        due = [wait for wait in waiting if wait not in self._hinted]
        for wait in due:
            self._hinted[wait] = now
            self._writer.tell(Wake(wait[0], "sweeper"))
        return len(due)

    async def _free_stranded(self) -> int:
        """Turn entries that a dead consumer holds into new ones."""
        stranded = await self._stream.stranded(self._stranded_seconds, MOST_ROOMS)
        for hint in stranded:
            if hint.chatroom_id is not None:
                self._writer.tell(Wake(hint.chatroom_id, "stranded"))
            self._writer.tell(Done((hint.entry_id,)))
        return len(stranded)
