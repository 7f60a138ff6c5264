"""Forgets what has come to mean nothing: codes and failures, which anyone can make for any phone; empty accounts."""

from collections.abc import Awaitable, Callable

from gembackend.actors import Periodic
from gembackend.auth import sweep_store
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.logs import logger
from gembackend.plumbing.postgres import Connection, Database

INTERVAL_SECONDS = 60.0
BATCH = 10_000
ACCOUNTS_BATCH = 500
"""Fewer, because with each go the rows that depend on it."""

Step = Callable[[Connection, int], Awaitable[int]]

_STEPS: tuple[tuple[str, Step, int], ...] = (
    ("codes", sweep_store.codes, BATCH),
    ("failures", sweep_store.failures, BATCH),
    ("places", sweep_store.places, BATCH),
    ("unverified_accounts", sweep_store.unverified_accounts, ACCOUNTS_BATCH),
)

log = logger(__name__)


class AuthSweeper(Periodic):
    """Sweeps a batch of each kind every INTERVAL_SECONDS; any number of processes may do it at once."""

    def __init__(self, database: Database) -> None:
        super().__init__("auth-sweeper", INTERVAL_SECONDS, expected=(Fault,))
        self._database = database

    async def run_once(self) -> dict[str, int]:
        """Remove a batch of each kind; how many rows that was.

        Each step stands alone: one that fails is logged, and raised only when the others have had their turn.
        """
        removed: dict[str, int] = {}
        failure: Exception | None = None
        for name, step, most in _STEPS:
            try:
                async with self._database.connection() as connection:
                    removed[name] = await step(connection, most)
            except Exception as error:
                log.warning("auth_sweep_failed", step=name, error=type(error).__name__)
                failure = failure or error
        if removed.get("unverified_accounts"):
            log.info("unverified_accounts_removed", count=removed["unverified_accounts"])
        if failure is not None:
            raise failure
        return removed
