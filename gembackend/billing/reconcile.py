"""Finds what no webhook told: events that were not delivered, subscriptions not looked at for too long."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from gembackend.actors import Periodic
from gembackend.billing import inbox_store as store
from gembackend.billing.faults import StripeFault
from gembackend.billing.inbox import Inbox
from gembackend.billing.stripe import Stripe
from gembackend.plumbing import logs, metrics
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.outages import Outages
from gembackend.plumbing.postgres import Database

log = logs.logger(__name__)

INTERVAL_SECONDS = 3600.0
AGAIN_SECONDS = 60.0
"""How soon a turn of which a step failed is taken again."""
STALE_AFTER = timedelta(days=1)
BLIND_STALE_AFTER = timedelta(hours=1)
"""The same while our key may not list events: then subscriptions are all that there is to look at."""
MOST_CUSTOMERS = 10_000
MOST_EVENTS = 10_000
MOST_PAGES = 20
"""How many pages of undelivered events are read at a time."""
EVENTS_KEPT = timedelta(days=90)
"""Stripe itself tells of an event for 30 days at most."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """One turn: missed events found, customers to be looked at again, old events removed."""

    events: int
    customers: int
    removed: int


class Reconciler(Periodic):
    """At the start and every hour. Its findings go the way of every event, through the inbox and the syncer.

    Each step stands alone: one that fails is said to, in `troubles`, and the others are taken all the same.
    """

    def __init__(self, database: Database, stripe: Stripe, inbox: Inbox) -> None:
        super().__init__("reconciler", AGAIN_SECONDS)
        self._outages = Outages()
        self._database = database
        self._stripe = stripe
        self._inbox = inbox

    @property
    def troubles(self) -> Mapping[str, str]:
        """Why steps fail, by their names."""
        return self._outages.reasons

    async def run_once(self) -> Reconciled:
        """One turn."""
        self._stripe.forget_refusals(INTERVAL_SECONDS)
        events = await self._step("missed_events", self._missed_events)
        customers = await self._step("stale_customers", self._ask_for_stale)
        removed = await self._step("old_events", self._remove_old)
        self._inbox.wake()
        self.interval = AGAIN_SECONDS if self.troubles else INTERVAL_SECONDS
        if events or customers:
            log.info("reconciled", events=events, customers=customers)
        return Reconciled(events, customers, removed)

    async def _step(self, name: str, work: Callable[[], Awaitable[int]]) -> int:
        """Take a step; how much it found, or 0 when it failed, which is told once for each reason."""
        try:
            found = await work()
        except Exception as error:
            if isinstance(error, Fault):
                reason = error.why if isinstance(error, StripeFault) else error.code.name
            else:
                log.exception("reconciliation_broke", step=name)
                reason = "internal"
            if self._outages.failed(reason, name):
                log.warning("reconciliation_step_failed", step=name, reason=reason)
            metrics.RECONCILIATION_FAILING.labels(name).set(1)
            return 0
        if self._outages.works(name):
            log.info("reconciliation_step_works", step=name)
        metrics.RECONCILIATION_FAILING.labels(name).set(0)
        return found

    async def _missed_events(self) -> int:
        """Take in what no webhook has taken, page by page, so that a page that fails takes no earlier one along."""
        new, odd, after = 0, 0, None
        for _ in range(MOST_PAGES):
            page = await self._stripe.undelivered_events(after=after)
            new += await self._inbox.ingest(page.events)
            odd += page.odd
            after = page.after
            if after is None:
                break
        if odd:
            metrics.BILLING_EVENTS.labels("unreadable").inc(odd)
            log.warning("stripe_events_unreadable", count=odd)
        return new

    async def _ask_for_stale(self) -> int:
        blind = "missed_events" in self.troubles and "list_events" in self._stripe.forbidden
        async with self._database.connection() as connection:
            return await store.ask_for_stale(connection, BLIND_STALE_AFTER if blind else STALE_AFTER, MOST_CUSTOMERS)

    async def _remove_old(self) -> int:
        async with self._database.connection() as connection:
            return await store.remove_old(connection, EVENTS_KEPT, MOST_EVENTS)
