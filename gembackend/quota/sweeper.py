"""Forgets what phones without an account had used, once that day is over."""

from gembackend.actors import Periodic
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database
from gembackend.quota import store

INTERVAL_SECONDS = 60.0
BATCH = 10_000


class QuotaSweeper(Periodic):
    """Sweeps a batch every INTERVAL_SECONDS; any number of processes may do it at once."""

    def __init__(self, database: Database) -> None:
        super().__init__("quota-sweeper", INTERVAL_SECONDS, expected=(Fault,))
        self._database = database

    async def run_once(self) -> int:
        """Remove what means nothing any more; how many rows that was."""
        async with self._database.connection() as connection:
            return await store.sweep(connection, BATCH)
