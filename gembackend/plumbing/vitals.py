"""The process watches itself: event loop lag, connection pools, mailboxes."""

from time import monotonic

from gembackend.actors import Periodic
from gembackend.plumbing import metrics
from gembackend.plumbing.postgres import Database

INTERVAL_SECONDS = 0.5


class Vitals(Periodic):
    """Twice a second: how late the loop is, and how much of the pool is in use."""

    def __init__(self, *databases: Database) -> None:
        super().__init__("vitals", INTERVAL_SECONDS)
        self._databases = databases
        self._due: float | None = None

    async def run_once(self) -> float:
        """Measure once; tells the lag in seconds."""
        now = monotonic()
        lag = max(0.0, now - self._due) if self._due is not None else 0.0
        self._due = now + INTERVAL_SECONDS
        metrics.LOOP_LAG_SECONDS.observe(lag)
        usage = [database.usage() for database in self._databases]
        metrics.POOL_IN_USE.set(sum(in_use for in_use, _ in usage))
        metrics.POOL_OPEN.set(sum(open_ for _, open_ in usage))
        return lag
