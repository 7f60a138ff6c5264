"""Finds work in PostgreSQL while hints cannot be had or sent, and makes good what was kept back when they can again."""

import random
from uuid import UUID

from gembackend.actors import Actor
from gembackend.plumbing import logs, metrics
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database
from gembackend.plumbing.redis_state import RedisState
from gembackend.prompts import sweep_store as store
from gembackend.prompts.claims import Claims
from gembackend.prompts.pool import WorkerPool
from gembackend.prompts.sweep_store import Behind
from gembackend.prompts.writer import StreamWriter, Wake

log = logs.logger(__name__)

PAUSE_SECONDS = 0.25
"""How long to wait when there was nothing to do: the delay that a prompt may have for want of its hint."""
VACANCY_SECONDS = 1.0
CHOICE = 2
"""So many times the free slots are searched for and some picked by chance, so that processes that search at the same
time seldom want the same rooms."""
MOST_HINTED = 5000


class Finder(Actor):
    """Asleep while Redis serves. While it does not, claims due rooms straight from PostgreSQL, as every process does by
    itself; the claim decides between them. Once Redis serves again, it hints every room that waits.
    """

    def __init__(
        self, database: Database, state: RedisState, claims: Claims, pool: WorkerPool, writer: StreamWriter
    ) -> None:
        super().__init__("finder")
        self._database = database
        self._state = state
        self._claims = claims
        self._pool = pool
        self._writer = writer
        self._made_good = 0
        self._behind: Behind | None = None

    async def run(self) -> None:
        """Look again and again whether hints come through, and search while they do not."""
        while not self.stopping.is_set():
            try:
                begun = await self.run_once()
            except Fault:
                begun = 0
            if not begun:
                await self.pause(PAUSE_SECONDS)

    async def run_once(self) -> int:
        """One turn; tells how many attempts it began. Raises Fault when the database is away."""
        if self._state.trouble is not None:
            return await self._claim()
        if self._state.failures != self._made_good:
            await self._hint()
        return 0

    async def _claim(self) -> int:
        if not await self._pool.vacancy(VACANCY_SECONDS):
            return 0
        async with self._pool.claiming:
            free = self._pool.free()
            if free <= 0:
                return 0
            rooms = await self._search(CHOICE * free)
            chosen = random.sample(rooms, min(free, len(rooms)))
            claimed = await self._claims.claim(chosen, suspects=self._pool.suspects_welcome())
            for prompt in claimed:
                self._pool.begin(prompt, ())
        metrics.FOUND.inc(len(claimed))
        return len(claimed)

    async def _hint(self) -> None:
        """Redis serves again: hint what waits, since hints were dropped meanwhile."""
        failures = self._state.failures
        rooms = await self._search(MOST_HINTED)
        for room in rooms:
            self._writer.tell(Wake(room, "finder"))
        if self._behind is None:
            self._made_good = failures
            log.info("hints_made_good", hinted=len(rooms))

    async def _search(self, most: int) -> list[UUID]:
        async with self._database.transaction() as connection:
            found = await store.waiting_rooms(connection, 0.0, most, self._behind)
        self._behind = found.behind
        return [room for room, _since in found.rooms]
