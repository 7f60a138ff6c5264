"""The process watches itself: event loop lag and connection pools."""

from time import monotonic

from gembackend.actors import Periodic
from gembackend.plumbing import metrics
from gembackend.plumbing.postgres import Database

INTERVAL_SECONDS = 0.5


class Vitals(Periodic):
    """Twice a second: how late the loop is, and how much of the pool is in use."""

    def __init__(self, **databases: Database) -> None:
        """`databases` are the connection pools, by name."""
        super().__init__("vitals", INTERVAL_SECONDS)
        self._databases = databases
        self._due: float | None = None

    async def run_once(self) -> float:
        """Measure once; tells the lag in seconds."""
        now = monotonic()
        lag = max(0.0, now - self._due) if self._due is not None else 0.0
        self._due = now + INTERVAL_SECONDS
        metrics.LOOP_LAG_SECONDS.observe(lag)
        for name, database in self._databases.items():
            in_use, open_ = database.usage()
            metrics.POOL_IN_USE.labels(name).set(in_use)
            metrics.POOL_OPEN.labels(name).set(open_)
            metrics.POOL_MAX.labels(name).set(database.size)
        return lag
