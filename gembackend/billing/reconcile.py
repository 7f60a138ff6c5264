"""Finds what no webhook told: events that were not delivered, subscriptions not looked at for too long."""

from dataclasses import dataclass
from datetime import timedelta

from gembackend.actors import Periodic
from gembackend.billing import inbox_store as store
from gembackend.billing.inbox import Inbox
from gembackend.billing.stripe import Stripe
from gembackend.plumbing import logs
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database

log = logs.logger(__name__)

INTERVAL_SECONDS = 3600.0
AGAIN_SECONDS = 60.0
"""How soon a turn that Stripe or the database spoilt is taken again."""
STALE_AFTER = timedelta(days=1)
MOST_CUSTOMERS = 10_000
MOST_EVENTS = 10_000
EVENTS_KEPT = timedelta(days=90)
"""Stripe itself tells of an event for 30 days at most."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """One turn: missed events found, customers to be looked at again, old events removed."""

    events: int
    customers: int
    removed: int


class Reconciler(Periodic):
    """At the start and every hour. Its findings go the way of every event, through the inbox and the syncer."""

    def __init__(self, database: Database, stripe: Stripe, inbox: Inbox) -> None:
        super().__init__("reconciler", AGAIN_SECONDS, expected=(Fault,))
        self._database = database
        self._stripe = stripe
        self._inbox = inbox

    async def run_once(self) -> Reconciled:
        """One turn; raises Fault when Stripe or the database is away."""
        self.interval = AGAIN_SECONDS
        events = await self._inbox.ingest(await self._stripe.undelivered_events())
        async with self._database.connection() as connection:
            customers = await store.ask_for_stale(connection, STALE_AFTER, MOST_CUSTOMERS)
            removed = await store.remove_old(connection, EVENTS_KEPT, MOST_EVENTS)
        self.interval = INTERVAL_SECONDS
        self._inbox.wake()
        if events or customers:
            log.info("reconciled", events=events, customers=customers)
        return Reconciled(events, customers, removed)
