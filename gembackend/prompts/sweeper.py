"""Finds what was overlooked: lost hints, dead processes, a Redis that lost its data."""

from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from uuid import UUID

from gembackend.actors import Periodic
from gembackend.plumbing import logs, metrics
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database
from gembackend.plumbing.redis import OUTAGES
from gembackend.prompts import upkeep_store as store
from gembackend.prompts.admission import Admission
from gembackend.prompts.stream import GroupLost, Stream
from gembackend.prompts.writer import Done, StreamWriter, Wake

log = logs.logger(__name__)

INTERVAL_SECONDS = 1.0
OVERLOOKED_SECONDS = 2.0
"""A due head that nobody has claimed for so long needs a new hint."""
AGAIN_SECONDS = 10.0
"""A room that still waits for the same reason is hinted again after this, or after a lease if that is shorter: it may
only be waiting for a free slot."""
MOST_ROOMS = 1000
STRANDED_MARGIN_SECONDS = 5.0
BURY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one turn found; only the leader among all processes hints."""

    led: bool
    hinted: int = 0
    stranded: int = 0


class Sweeper(Periodic):
    """Every second counts the backlog and, when it is the leader, hints what was overlooked."""

    def __init__(
        self,
        database: Database,
        stream: Stream,
        writer: StreamWriter,
        admission: Admission,
        lease_seconds: float,
    ) -> None:
        super().__init__("sweeper", INTERVAL_SECONDS, expected=(Fault, GroupLost, *OUTAGES))
        self._database = database
        self._stream = stream
        self._writer = writer
        self._admission = admission
        self._stranded_seconds = lease_seconds + STRANDED_MARGIN_SECONDS
        self._again_seconds = min(AGAIN_SECONDS, lease_seconds)
        self._hinted: dict[tuple[UUID, datetime], float] = {}
        self._epoch: str | None = None

    async def run_once(self) -> Sweep:
        """One turn; raises Fault when PostgreSQL is away and what Redis raises when that is."""
        await self._count()
        lost_data = await self._redis_lost_data()
        async with self._database.transaction() as connection:
            led = await store.lead_sweep(connection)
            waited = 0.0 if lost_data else OVERLOOKED_SECONDS
            waiting = await store.overlooked_rooms(connection, waited, MOST_ROOMS) if led else []
        if not led:
            return Sweep(led=False)
        metrics.SWEEPS.inc()
        hinted = self._hint(waiting)
        stranded = await self._free_stranded()
        if hinted or stranded:
            log.info("swept", hinted=hinted, stranded=stranded, lost_data=lost_data)
        return Sweep(True, hinted, stranded)

    async def _count(self) -> None:
        """Tell admission and the metrics how much is waiting."""
        async with self._database.connection() as connection:
            backlog = await store.backlog(connection)
        self._admission.counted(backlog.unfinished)
        metrics.QUEUE_DEPTH.set(backlog.unfinished)
        metrics.QUEUE_OLDEST_SECONDS.set(backlog.oldest_seconds)

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
        """Turn entries that a dead consumer holds into new ones, and remove consumers that are long gone."""
        stranded = await self._stream.stranded(self._stranded_seconds, MOST_ROOMS)
        for hint in stranded:
            if hint.chatroom_id is not None:
                self._writer.tell(Wake(hint.chatroom_id, "stranded"))
            self._writer.tell(Done((hint.entry_id,)))
        await self._stream.bury_consumers(BURY_SECONDS)
        return len(stranded)
