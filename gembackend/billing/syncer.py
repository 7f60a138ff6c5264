"""The actor that empties the inbox: one sync a customer, several customers at once."""

import asyncio
from time import monotonic

from gembackend.actors import Actor
from gembackend.billing import inbox_store
from gembackend.billing.sync import Syncs
from gembackend.billing.sync_store import Claim
from gembackend.plumbing import logs, metrics
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.outages import Outages
from gembackend.plumbing.postgres import Database
from gembackend.plumbing.waiting import within

log = logs.logger(__name__)

AT_ONCE = 8
"""Customers synced at a time by one process."""
POLL_SECONDS = 0.5
"""How soon is seen what nobody here was told of: retries, deleted users, what another process took and left."""


class Syncer(Actor):
    """Claims customers that are due and settles them; `wake` makes it look at once."""

    def __init__(self, database: Database, syncs: Syncs) -> None:
        super().__init__("billing")
        self._database = database
        self._syncs = syncs
        self._woken = asyncio.Event()
        self._running: dict[asyncio.Task[None], Claim] = {}
        self._measure_at = 0.0
        self._outages = Outages()

    def wake(self) -> None:
        """Say that there is something to do."""
        self._woken.set()

    def wind_down(self) -> None:
        """Look up from waiting."""
        self._woken.set()

    async def run(self) -> None:
        """Until told to stop; then break off what is under way, which loses nothing, and give it back."""
        try:
            while not self.stopping.is_set():
                self._woken.clear()
                await self._turn()
                await within(self._woken, POLL_SECONDS)
        finally:
            await self._break_off()

    async def _turn(self) -> None:
        """Begin what is due, and measure what waits, each although the other fails."""
        trouble = None
        for step in (self._begin, self._measure):
            try:
                await step()
            except Fault as fault:
                trouble = fault.code.name
        if trouble is None:
            if self._outages.works():
                log.info("billing_goes_on")
        elif self._outages.failed(trouble):
            log.warning("billing_waits", reason=trouble)

    async def _begin(self) -> None:
        """Begin as many syncs as there is room for."""
        room = AT_ONCE - len(self._running)
        if not room:
            return
        for claim in await self._syncs.claim_due(room):
            task = asyncio.create_task(self._settle(claim), name=f"sync-{claim.customer_id}")
            self._running[task] = claim
            task.add_done_callback(self._ended)

    async def _settle(self, claim: Claim) -> None:
        try:
            await self._syncs.settle(claim)
        except Fault as fault:
            log.warning("sync_not_stored", customer=claim.customer_id, reason=fault.code.name)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self.wake()

    async def _measure(self) -> None:
        if monotonic() < self._measure_at:
            return
        self._measure_at = monotonic() + POLL_SECONDS
        async with self._database.connection() as connection:
            metrics.BILLING_OLDEST_SECONDS.set(await inbox_store.oldest_pending_seconds(connection))

    async def _break_off(self) -> None:
        claims = list(self._running.values())
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not claims:
            return
        try:
            await self._syncs.release(claims)
        except Fault as fault:
            log.warning("syncs_not_given_back", count=len(claims), reason=fault.code.name)
