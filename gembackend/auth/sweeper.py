"""Forgets, after a day, the codes and failures of phones; anyone can make some for any phone there is."""

from gembackend.actors import Periodic
from gembackend.auth import store
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database

INTERVAL_SECONDS = 60.0
BATCH = 10_000


class AuthSweeper(Periodic):
    """Sweeps a batch every INTERVAL_SECONDS; any number of processes may do it at once."""

    def __init__(self, database: Database) -> None:
        super().__init__("auth-sweeper", INTERVAL_SECONDS, expected=(Fault,))
        self._database = database

    async def run_once(self) -> int:
        """Remove what has meant nothing for a day; how many rows that was."""
        async with self._database.connection() as connection:
            return await store.sweep(connection, BATCH)
