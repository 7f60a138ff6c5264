"""A sync: fetch every subscription of one customer, and write what they entitle to."""

from collections.abc import Sequence
from uuid import UUID

from gembackend.billing import rules
from gembackend.billing import sync_store as store
from gembackend.billing.faults import CustomerMissing, StripeFault
from gembackend.billing.rules import Entitlement, Plan, Subscription
from gembackend.billing.stripe import Stripe
from gembackend.billing.sync_store import Claim
from gembackend.plumbing import logs, metrics
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database

log = logs.logger(__name__)


class Syncs:
    """Claims customers and syncs them. No database connection is held while Stripe is asked.

    Everything raises Fault when the database is away; then the lease runs out, and the customer is due again.
    """

    def __init__(self, database: Database, stripe: Stripe, plan: Plan) -> None:
        self._database = database
        self._stripe = stripe
        self._plan = plan

    async def claim_due(self, most: int) -> list[Claim]:
        """Claim up to `most` customers that are due."""
        async with self._database.transaction() as connection:
            return await store.claim_due(connection, most)

    async def release(self, claims: Sequence[Claim]) -> None:
        """Give back customers whose syncs were broken off."""
        async with self._database.connection() as connection:
            await store.release(connection, claims)

    async def settle(self, claim: Claim) -> None:
        """Do what is due for a claimed customer; a failure is counted, and tried again later."""
        try:
            await (self._close(claim) if claim.user_id is None else self._sync(claim))
        except CustomerMissing as fault:
            await (self._retire(claim) if fault.deleted else self._failed(claim, fault))
        except StripeFault as fault:
            await self._failed(claim, fault)
        except Fault:
            raise
        except Exception:
            log.exception("sync_broke")
            await self._failed(claim, StripeFault("internal", lasting=True))

    async def now(self, user_id: UUID, customer_id: str) -> list[Subscription]:
        """Sync a user's customer for somebody who waits, and return the subscriptions; raises StripeFault.

        Whoever is at it already is overtaken. A customer that Stripe does not have is given up: CustomerMissing.
        """
        async with self._database.transaction() as connection:
            claim = await store.claim(connection, user_id, customer_id)
        if claim is None:
            raise Fault("unauthorized", "This session has ended.")
        try:
            return await self._sync(claim)
        except CustomerMissing:
            await self._retire(claim)
            raise
        except StripeFault as fault:
            await self._failed(claim, fault)
            raise

    async def give_up(self, user_id: UUID, customer_id: str) -> None:
        """Note that Stripe does not have a user's customer."""
        async with self._database.transaction() as connection:
            claim = await store.claim(connection, user_id, customer_id)
        if claim is not None:
            await self._retire(claim)

    async def _sync(self, claim: Claim) -> list[Subscription]:
        fetched = await self._stripe.subscriptions(claim.customer_id)
        async with self._database.transaction() as connection:
            await store.lock_user(connection, claim.user_id)
            now = await store.synced(connection, claim)
            if now is None:
                metrics.BILLING_SYNCS.labels("superseded").inc()
                return fetched
            changed, known = await store.write_subscriptions(connection, claim.customer_id, fetched)
            await store.write_tier(connection, claim.user_id, rules.entitlement(known, self._plan, now))
            events = await store.processed(connection, claim)
        metrics.BILLING_SYNCS.labels("changed" if changed else "unchanged").inc()
        metrics.BILLING_EVENTS.labels("processed").inc(events)
        if changed and claim.reconciling:
            metrics.BILLING_DRIFT.inc()
            log.warning("billing_drift", customer=claim.customer_id)
        return known

    async def _retire(self, claim: Claim) -> None:
        """Stripe does not have the customer any more: no subscription, no Pro."""
        async with self._database.transaction() as connection:
            await store.lock_user(connection, claim.user_id)
            if await store.synced(connection, claim) is None:
                return
            await store.retire(connection, claim.customer_id)
            await store.write_tier(connection, claim.user_id, Entitlement("Basic", None))
            events = await store.processed(connection, claim, also_later=True)
        metrics.BILLING_SYNCS.labels("retired").inc()
        metrics.BILLING_EVENTS.labels("processed").inc(events)
        log.warning("billing_customer_gone", customer=claim.customer_id)

    async def _close(self, claim: Claim) -> None:
        """Leave nothing of a deleted user at Stripe that could be charged.

        What cannot be closed is tried again; the subscription, which goes with the customer, does not wait for it.
        """
        if not claim.gone:
            left = await self._close_checkout(claim)
            await self._stripe.delete_customer(claim.customer_id)
            if left is not None:
                raise left
        async with self._database.transaction() as connection:
            if not await store.forget(connection, claim):
                return
            events = await store.processed(connection, claim, also_later=True)
        metrics.BILLING_SYNCS.labels("closed").inc()
        metrics.BILLING_EVENTS.labels("processed").inc(events)

    async def _close_checkout(self, claim: Claim) -> StripeFault | None:
        """Let nobody pay any more in the newest Checkout session; why it may still be open."""
        if claim.checkout_session_id is not None:
            try:
                await self._stripe.expire_checkout(claim.checkout_session_id)
            except StripeFault as fault:
                return fault
        return None

    async def _failed(self, claim: Claim, fault: StripeFault) -> None:
        """Try again later; events whose failure lasts are parked in the end, but a deleted user's customer never is."""
        parked = 0
        async with self._database.transaction() as connection:
            ours = await store.postpone(connection, claim, rules.retry_seconds(claim.failures + 1))
            if ours and fault.lasting and claim.user_id is not None:
                parked = await store.count_attempt(connection, claim, fault.reason, rules.MOST_ATTEMPTS)
        metrics.BILLING_SYNCS.labels("failed").inc()
        metrics.BILLING_EVENTS.labels("parked").inc(parked)
        if parked:
            log.error("billing_events_parked", count=parked, customer=claim.customer_id, reason=fault.reason)
