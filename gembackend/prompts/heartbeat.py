"""The heartbeat that keeps this process's leases alive."""

from dataclasses import dataclass

from gembackend.actors import Periodic
from gembackend.plumbing import logs, metrics
from gembackend.plumbing.faults import Fault
from gembackend.prompts.claims import Claims
from gembackend.prompts.pool import WorkerPool

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat: how many leases were extended, and how many had been lost."""

    extended: int
    lost: int


class Heartbeat(Periodic):
    """One UPDATE over all running prompts, every third of a lease; what is no longer ours is let go of."""

    def __init__(self, claims: Claims, pool: WorkerPool, lease_seconds: float) -> None:
        super().__init__("heartbeat", lease_seconds / 3, expected=(Fault,))
        self._claims = claims
        self._pool = pool

    async def run_once(self) -> Beat:
        """Extend every lease once; raises Fault when the database is away."""
        held = self._pool.held()
        if not held:
            return Beat(0, 0)
        kept = await self._claims.extend(held)
        lost = sum(self._pool.abandon(prompt_id, fence) for prompt_id, fence in held if prompt_id not in kept)
        if lost:
            metrics.LEASES_LOST.inc(lost)
            log.warning("leases_lost", count=lost)
        return Beat(len(kept), lost)
