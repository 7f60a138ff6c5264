"""The inbox of events: what Stripe tells is stored before it is acknowledged, and has its effect afterwards."""

from collections.abc import Callable, Sequence
from time import time

import msgspec

from gembackend.billing import inbox_store as store
from gembackend.billing import rules
from gembackend.billing.models import AnyEvent, StripeEvent
from gembackend.plumbing import logs, metrics
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Connection, Database

log = logs.logger(__name__)

THIN = "v2."
"""What `object` of a thin event begins with: it is "v2.core.event"."""


class Inbox:
    """Takes events in, each once, however often and from wherever it comes. `wake` is called when there is work."""

    def __init__(self, database: Database, signing_secrets: Sequence[str], wake: Callable[[], None]) -> None:
        self._database = database
        self._secrets = signing_secrets
        self.wake = wake

    async def take(self, raw: bytes, signature: str) -> None:
        """Store what a webhook brought; raises Fault when it is not Stripe's, not an event, or cannot be stored."""
        if not rules.signed(raw, signature, self._secrets, time()):
            log.info("stripe_event_refused", reason="signature")
            raise Fault("invalid_signature", "The Stripe-Signature header does not sign this body, or not now.")
        try:
            event = msgspec.json.decode(raw, type=StripeEvent)
        except (ValueError, RecursionError) as error:
            raise _not_read(raw) from error
        await self.ingest([event])

    async def ingest(self, events: Sequence[StripeEvent]) -> int:
        """Store events; tells how many of them were new."""
        new = 0
        async with self._database.connection() as connection:
            for event in events:
                new += await _stored(connection, event)
        self.wake()
        return new


def _not_read(raw: bytes) -> Fault:
    """Why something that Stripe has signed is no event to us.

    A thin event only names what it is about. Stripe sends those to endpoints that are set to thin payloads.
    https://docs.stripe.com/webhooks#snapshot-and-thin-events
    """
    try:
        found = msgspec.json.decode(raw, type=AnyEvent)
    except (ValueError, RecursionError):
        found = AnyEvent()
    if isinstance(found.object, str) and found.object.startswith(THIN):
        metrics.BILLING_EVENTS.labels("thin").inc()
        log.warning("stripe_event_refused", reason="thin", type=rules.printable(found.type))
        return Fault(
            "thin_event",
            "The event is signed by Stripe, but thin: set this webhook endpoint's payload style to snapshot in "
            "Stripe's dashboard (Workbench, Webhooks), or make an endpoint with snapshot payloads.",
        )
    metrics.BILLING_EVENTS.labels("unreadable").inc()
    log.warning("stripe_event_refused", reason="unreadable", type=rules.printable(found.type))
    return Fault("malformed_request", "The body is not a Stripe event.")


async def _stored(connection: Connection, event: StripeEvent) -> bool:
    about = event.data.object
    outcome = await store.receive(
        connection,
        event.id,
        event.type,
        rules.customer_of(about.object, about.id, about.customer),
        rules.at(event.created),
        relevant=event.type in rules.RELEVANT_TYPES,
    )
    metrics.BILLING_EVENTS.labels("repeated" if outcome is None else "received").inc()
    if outcome == "ignored":
        metrics.BILLING_EVENTS.labels("ignored").inc()
    return outcome is not None
