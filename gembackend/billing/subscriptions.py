"""What a user may do about a subscription: begin it, look at it, manage it, end it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from gembackend.billing import rules, store
from gembackend.billing.creations import Creations, Overtaken, ended
from gembackend.billing.faults import CustomerMissing, StripeFault
from gembackend.billing.models import CheckoutStarted, SubscriptionStatus
from gembackend.billing.rules import Plan
from gembackend.billing.store import Customer
from gembackend.billing.stripe import Stripe
from gembackend.billing.stripe_values import CheckoutSession
from gembackend.billing.sync import Syncs
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database

PATIENCE_SECONDS = 11.0
"""How long a client waits for Stripe, all calls together."""
RETURN_SECONDS = 5.0
"""How long the success page waits for Stripe."""
RETURN_PAUSE_SECONDS = 10.0
"""The success page causes no more than one sync in so long."""


class Standings:
    """What is known here of tiers and subscriptions; nothing asks Stripe, and there need be none."""

    def __init__(self, database: Database, plan: Plan) -> None:
        self._database = database
        self._plan = plan

    async def of(self, user_id: UUID) -> SubscriptionStatus:
        """The user's tier, and the subscription to show."""
        async with self._database.connection() as connection:
            standing = await store.standing(connection, user_id)
        if standing is None:
            raise ended()
        shown = rules.foremost(standing.subscriptions, self._plan)
        return SubscriptionStatus(
            subscription_tier=standing.tier,
            status=shown.status if shown else None,
            current_period_end=shown.current_period_end if shown else None,
            cancel_at_period_end=shown is not None and shown.cancel_at is not None,
        )


class Subscriptions:
    """The use cases of the room. Each raises Fault: of Stripe, of the database, or what it says of itself."""

    def __init__(self, database: Database, stripe: Stripe, syncs: Syncs, plan: Plan, *, public_base_url: str) -> None:
        self._database = database
        self._stripe = stripe
        self._syncs = syncs
        self._plan = plan
        self._standings = Standings(database, plan)
        self._success_url = f"{public_base_url}/checkout/success"
        self._creations = Creations(
            database,
            stripe,
            success_url=self._success_url + "?session_id={CHECKOUT_SESSION_ID}",
            cancel_url=f"{public_base_url}/checkout/cancel",
        )

    async def subscribe(self, user_id: UUID) -> CheckoutStarted:
        """A Checkout session to pay in: the open one if there is one; raises Fault("already_subscribed")."""
        async with _in_time():
            try:
                session = await self._checkout(user_id)
            except (CustomerMissing, Overtaken):  # given up now, so that this makes another, or finds the other one
                session = await self._checkout(user_id)
        assert session.url is not None
        return CheckoutStarted(url=session.url, session_id=session.id)

    async def open_portal(self, user_id: UUID) -> str:
        """The URL of Stripe's portal for the user; raises Fault("not_subscribed") for one who never subscribed."""
        customer = await self._known_customer(user_id)
        async with _in_time():
            try:
                return await self._stripe.open_portal(customer.id, self._success_url)
            except CustomerMissing:
                await self._syncs.give_up(user_id, customer.id)
                raise _not_subscribed() from None

    async def cancel(self, user_id: UUID) -> SubscriptionStatus:
        """Let the subscription end with its period; again changes nothing. Raises Fault("not_subscribed")."""
        customer = await self._known_customer(user_id)
        async with _in_time():
            try:
                found = rules.live(await self._syncs.now(user_id, customer.id), self._plan)
                if not found:
                    raise _not_subscribed()
                left = await self._cancelled([each.id for each in found if each.cancel_at is None])
                await self._syncs.now(user_id, customer.id)
                if left is not None:
                    raise left
            except CustomerMissing:
                raise _not_subscribed() from None
        return await self._standings.of(user_id)

    async def come_back(self, session_id: str) -> bool:
        """Whether whoever comes back from this Checkout session is Pro now; Stripe is asked, the visitor is not."""
        async with self._database.connection() as connection:
            returned = await store.come_back(connection, session_id, RETURN_PAUSE_SECONDS)
        if returned is None:
            return False
        if returned.due:
            try:
                async with asyncio.timeout(RETURN_SECONDS):
                    await self._syncs.now(returned.user_id, returned.customer_id)
            except (StripeFault, TimeoutError):
                pass  # the event will tell
        return (await self._standings.of(returned.user_id)).subscription_tier == "Pro"

    async def _checkout(self, user_id: UUID) -> CheckoutSession:
        """The session to pay in; raises CustomerMissing once the customer that Stripe does not have is given up."""
        customer = await self._customer(user_id)
        if rules.live(await self._syncs.now(user_id, customer.id), self._plan):
            raise Fault(
                "already_subscribed",
                "There is a subscription already; POST /v1/subscription/portal gives the page to manage it.",
            )
        earlier = customer.checkout_session_id
        session = await self._stripe.checkout(earlier) if earlier else None
        if session is not None and session.open:
            return session
        try:
            session = await self._creations.checkout(user_id, customer)
        except CustomerMissing:
            await self._syncs.give_up(user_id, customer.id)
            raise
        if not session.open:
            raise StripeFault("checkout_not_open")
        return session

    async def _customer(self, user_id: UUID) -> Customer:
        """The user's customer, made and stored if there is none."""
        async with self._database.connection() as connection:
            customer = await store.customer_of_user(connection, user_id)
        if customer is not None and not customer.gone:
            return customer
        return await self._creations.customer(user_id, after=customer.id if customer else None)

    async def _cancelled(self, subscription_ids: Sequence[str]) -> StripeFault | None:
        """Cancel each of these, whatever becomes of the others; why one was not cancelled."""
        left = None
        for subscription_id in subscription_ids:
            try:
                await self._stripe.cancel_at_period_end(subscription_id)
            except StripeFault as fault:
                left = fault
        return left

    async def _known_customer(self, user_id: UUID) -> Customer:
        async with self._database.connection() as connection:
            customer = await store.customer_of_user(connection, user_id)
        if customer is None or customer.gone:
            raise _not_subscribed()
        return customer


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """Bound all that a client waits for."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield
    except TimeoutError as error:
        raise StripeFault("timeout") from error


def _not_subscribed() -> Fault:
    return Fault("not_subscribed", "There is no subscription; POST /v1/subscribe/pro begins one.")
