"""Makes customers and Checkout sessions at Stripe, each once, whatever becomes of the calls.

Stripe answers an idempotency key with what it answered first, for a day, and that may be a failure. So the key has the
number of the attempt in it, which is stored before the call. The same attempt is made again and again while its key can
still succeed. Before the next one is made, Stripe is looked at: the failed one may have had its effect all the same.
What was made twice, by processes that knew nothing of each other, is one too many and goes at once.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from gembackend.billing import creation_store, store
from gembackend.billing.creation_store import Pending, What
from gembackend.billing.faults import CustomerMissing, StripeFault
from gembackend.billing.store import Customer
from gembackend.billing.stripe import Stripe
from gembackend.billing.stripe_values import CheckoutSession
from gembackend.plumbing import logs
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database

log = logs.logger(__name__)
T = TypeVar("T")

KEY_SECONDS = 3600.0
"""How long an attempt is made again under its key; Stripe forgets keys after a day, and then would do it again."""
CLOCKS_APART = timedelta(minutes=5)
"""How far Stripe's clock may be from the database's, with the time that a call takes."""


class Overtaken(StripeFault):
    """Somebody else has stored another one meanwhile; begin afresh."""

    def __init__(self) -> None:
        super().__init__("overtaken")


class Creations:
    """Everything raises Fault: of Stripe, of the database, or because the user is gone."""

    def __init__(self, database: Database, stripe: Stripe, *, success_url: str, cancel_url: str) -> None:
        self._database = database
        self._stripe = stripe
        self._success_url = success_url
        self._cancel_url = cancel_url

    async def customer(self, user_id: UUID, *, after: str | None) -> Customer:
        """Make and store a user's customer, the next one `after` another that is gone."""

        async def look(pending: Pending) -> str | None:
            return await self._stripe.find_customer(
                user_id,
                since=pending.begun_at - CLOCKS_APART,
                until=pending.asked_at + CLOCKS_APART,
                after=after,
            )

        async def make(attempt: int) -> str:
            return await self._stripe.create_customer(user_id, after=after, attempt=attempt)

        made = await self._once(user_id, "customer", look, make)
        async with self._database.transaction() as connection:
            await store.keep_customer(connection, user_id, made)
            await creation_store.end(connection, user_id, "customer", "checkout")
            customer = await store.customer_of_user(connection, user_id)
        if customer is None or customer.id != made:
            await self._remove("customer", made)
        if customer is None:
            raise ended()
        return customer

    async def checkout(self, user_id: UUID, customer: Customer) -> CheckoutSession:
        """Open and store a Checkout session for a customer whose latest one is not open; raises Overtaken."""

        async def look(_: Pending) -> CheckoutSession | None:
            return await self._only_open(user_id, customer.id)

        async def make(attempt: int) -> CheckoutSession:
            return await self._stripe.create_checkout(
                customer.id,
                user_id,
                success_url=self._success_url,
                cancel_url=self._cancel_url,
                after=customer.checkout_session_id,
                attempt=attempt,
            )

        session = await self._once(user_id, "checkout", look, make)
        async with self._database.transaction() as connection:
            kept = await store.keep_checkout(connection, user_id, customer, session.id)
            if kept:
                await creation_store.end(connection, user_id, "checkout")
        if not kept:
            await self._remove("checkout", session.id)
            raise Overtaken
        return session

    async def _once(
        self,
        user_id: UUID,
        what: What,
        look: Callable[[Pending], Awaitable[T | None]],
        make: Callable[[int], Awaitable[T]],
    ) -> T:
        """Make the attempt that is due; if the one before may have had its effect, `look` for that first."""
        async with self._database.connection() as connection:
            pending = await creation_store.begin(connection, user_id, what, KEY_SECONDS)
        if pending is None:
            raise ended()
        attempt = pending.attempt
        if pending.doubtful:
            found = await _known(look(pending))
            if found is not None:
                log.info("billing_creation_found", what=what)
                return found
            async with self._database.connection() as connection:
                following = await creation_store.go_on(connection, user_id, what, attempt)
            if following is None:
                raise ended()
            attempt = following
        try:
            return await make(attempt)
        except StripeFault as fault:
            if fault.kept:
                async with self._database.connection() as connection:
                    await creation_store.fail(connection, user_id, what, attempt)
            raise

    async def _remove(self, what: What, made: str) -> None:
        """Remove what was made although there is another one already; nobody has been told of it."""
        try:
            await (self._stripe.delete_customer(made) if what == "customer" else self._stripe.expire_checkout(made))
        except StripeFault as fault:
            log.error("billing_surplus_left", what=what, id=made, reason=fault.reason)
        else:
            log.warning("billing_surplus_removed", what=what, id=made)

    async def _only_open(self, user_id: UUID, customer_id: str) -> CheckoutSession | None:
        """The newest open session as it would be made now; all others of the user are closed."""
        wanted: CheckoutSession | None = None
        for session in await self._stripe.open_checkouts(customer_id, user_id):
            if wanted is None and session.success_url == self._success_url:
                wanted = session
            else:
                await self._stripe.expire_checkout(session.id)
        return wanted


async def _known(looking: Awaitable[T | None]) -> T | None:
    """What Stripe knows. When it will not say for good, nobody can pay but by making another, which costs nobody."""
    try:
        return await looking
    except StripeFault as fault:
        if isinstance(fault, CustomerMissing) or not fault.lasting or fault.reason == "unexpected_answer":
            raise
        return None


def ended() -> Fault:
    """The answer to somebody who is gone."""
    return Fault("unauthorized", "This session has ended.")
