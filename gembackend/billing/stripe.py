"""The only door to stripe-python: its asynchronous client on its aiohttp transport, with typed values and faults."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from hashlib import sha256
from time import monotonic
from typing import Literal, TypeVar
from uuid import UUID

import aiohttp
import stripe

from gembackend.billing import stripe_values as values
from gembackend.billing.faults import CustomerMissing, StripeFault
from gembackend.billing.prices import Price
from gembackend.billing.rules import RELEVANT_TYPES, Subscription
from gembackend.billing.stripe_faults import CONFLICT, fault_of
from gembackend.billing.stripe_values import CheckoutSession, EventPage
from gembackend.plumbing import logs, metrics

log = logs.logger(__name__)
T = TypeVar("T")

Permission = Literal["create customers", "change subscriptions", "open Checkout", "open the customer portal"]
"""What a restricted key of Stripe may be without, and the service needs to write."""

API_VERSION = "2026-10-28.endive"
"""What this code was written for. https://docs.stripe.com/api/versioning"""
CALL_SECONDS = 10.0
"""How long one operation may take, its retry and all its pages included."""
RETRIES = 1
"""Made by the SDK itself, under the same idempotency key, when a connection fails and after 409 and 5xx."""
IN_USE_SECONDS = 0.2
"""How long to wait for somebody else's call under the same idempotency key before asking for its answer again."""
NOBODY = "gembackend_check"
"""The end of ids that nothing at Stripe has."""


class Stripe:
    """What the service wants of Stripe. Every method raises StripeFault; use within one event loop and `close`.

    `api_base` is another base URL of the API, None for Stripe's. `forbidden` has what Stripe has refused to our key, by
    operation: why, and when (monotonic seconds).
    """

    def __init__(self, secret_key: str, price_id: str, *, api_base: str | None = None) -> None:
        # The library's own settings: no timings of ours to Stripe, and no file in the home directory for it.
        stripe.enable_telemetry = False
        self._price_id = price_id
        self.forbidden: dict[str, tuple[str, float]] = {}
        self._http = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=CALL_SECONDS))
        self._api = stripe.StripeClient(
            secret_key,
            stripe_version=API_VERSION,
            base_addresses={"api": api_base.rstrip("/")} if api_base else None,
            max_network_retries=RETRIES,
            http_client=self._http,
        ).v1

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def create_customer(self, user_id: UUID, *, after: str | None, attempt: int = 0) -> str:
        """Make a user's customer, or the next one `after` another; an attempt gives the same one again."""
        key = _key("customer", attempt, user_id, after)
        async with self._call("create_customer"):
            customer = await _once_free(
                lambda: self._api.customers.create_async(
                    {"metadata": {"user_id": str(user_id)}}, {"idempotency_key": key}
                )
            )
            return customer.id

    async def find_customer(self, user_id: UUID, *, since: datetime, until: datetime, after: str | None) -> str | None:
        """A user's customer other than `after` that was made in this time.

        A list tells of what was made a moment ago, which a search does not. https://docs.stripe.com/search
        """
        async with self._call("find_customer"):
            found = await self._api.customers.list_async(
                {"created": {"gte": int(since.timestamp()), "lte": int(until.timestamp())}, "limit": 100}
            )
            async for each in found.auto_paging_iter():
                if (each.to_dict().get("metadata") or {}).get("user_id") == str(user_id) and each.id != after:
                    return each.id
        return None

    async def delete_customer(self, customer_id: str) -> None:
        """Delete a customer, which cancels all its subscriptions at once; one that is gone already will do."""
        try:
            async with self._call("delete_customer"):
                await self._api.customers.delete_async(customer_id)
        except StripeFault as fault:
            if fault.reason != "resource_missing":
                raise

    async def subscriptions(self, customer_id: str) -> list[Subscription]:
        """Every subscription of a customer, ended ones too; raises CustomerMissing."""
        try:
            async with self._call("list_subscriptions"):
                found = await self._api.subscriptions.list_async(
                    {"customer": customer_id, "status": "all", "limit": 100}
                )
                return [values.subscription(each) async for each in found.auto_paging_iter()]
        except CustomerMissing as fault:
            raise CustomerMissing(deleted=await self._was_deleted(customer_id)) from fault

    async def cancel_at_period_end(self, subscription_id: str) -> None:
        """Let a subscription end with the period that is paid for."""
        async with self._call("cancel_subscription"):
            await self._api.subscriptions.update_async(subscription_id, {"cancel_at_period_end": True})

    async def create_checkout(
        self,
        customer_id: str,
        user_id: UUID,
        *,
        success_url: str,
        cancel_url: str,
        after: str | None,
        attempt: int = 0,
    ) -> CheckoutSession:
        """Open a Checkout session for the Pro price, the next one `after` another; an attempt gives the same again."""
        key = _key("checkout", attempt, customer_id, after, self._price_id, success_url, cancel_url)
        async with self._call("create_checkout"):
            session = await _once_free(
                lambda: self._api.checkout.sessions.create_async(
                    {
                        "mode": "subscription",
                        "customer": customer_id,
                        "client_reference_id": str(user_id),
                        "line_items": [{"price": self._price_id, "quantity": 1}],
                        "subscription_data": {"metadata": {"user_id": str(user_id)}},
                        "success_url": success_url,
                        "cancel_url": cancel_url,
                    },
                    {"idempotency_key": key},
                )
            )
            return values.checkout(session)

    async def open_checkouts(self, customer_id: str, user_id: UUID) -> list[CheckoutSession]:
        """The open Checkout sessions that were made for a user here, newest first."""
        async with self._call("list_checkouts"):
            found = await self._api.checkout.sessions.list_async(
                {"customer": customer_id, "status": "open", "limit": 100}
            )
            sessions = [each async for each in found.auto_paging_iter() if _owner(each) == str(user_id)]
            return [session for each in sessions if (session := values.checkout(each)).open]

    async def checkout(self, session_id: str) -> CheckoutSession | None:
        """A Checkout session as it is now; None when Stripe does not know it."""
        try:
            async with self._call("retrieve_checkout"):
                return values.checkout(await self._api.checkout.sessions.retrieve_async(session_id))
        except StripeFault as fault:
            if fault.reason != "resource_missing":
                raise
            return None

    async def expire_checkout(self, session_id: str) -> None:
        """Let nobody pay in a Checkout session any more; one that is not open stays as it is."""
        try:
            async with self._call("expire_checkout"):
                await self._api.checkout.sessions.expire_async(session_id)
        except StripeFault as fault:
            if not fault.lasting:
                raise

    async def open_portal(self, customer_id: str, return_url: str) -> str:
        """The URL of a session of the customer portal; raises CustomerMissing."""
        async with self._call("create_portal"):
            session = await self._api.billing_portal.sessions.create_async(
                {"customer": customer_id, "return_url": return_url}
            )
            return session.url

    async def undelivered_events(self, *, after: str | None = None, limit: int = 100) -> EventPage:
        """Events that matter and no webhook has taken, a page from the newest on; Stripe keeps them for 30 days."""
        async with self._call("list_events"):
            found = await self._api.events.list_async(
                {"delivery_success": False, "types": list(RELEVANT_TYPES), "limit": limit}
                | ({"starting_after": after} if after else {})  # type: ignore[arg-type]
            )
            told = found.to_dict()
            return values.event_page(told["data"], more=bool(told.get("has_more")))

    async def price(self) -> Price:
        """The price that is sold."""
        async with self._call("retrieve_price"):
            return values.price(await self._api.prices.retrieve_async(self._price_id))

    async def try_permission(self, permission: Permission) -> None:
        """Find out whether our key may do this, without doing it: Stripe is asked to do it to what does not exist."""
        async with self._call("try_permission"):
            try:
                match permission:
                    case "create customers":
                        await self._api.customers.update_async(f"cus_{NOBODY}")
                    case "change subscriptions":
                        await self._api.subscriptions.update_async(f"sub_{NOBODY}")
                    case "open Checkout":
                        await self._api.checkout.sessions.expire_async(f"cs_test_{NOBODY}")
                    case "open the customer portal":
                        await self._api.billing_portal.sessions.create_async({"customer": f"cus_{NOBODY}"})
            except stripe.InvalidRequestError:
                return  # the key was let in

    async def has_portal_settings(self) -> bool:
        """Whether the customer portal has been set up, without which it opens for nobody."""
        async with self._call("list_portal_settings"):
            found = await self._api.billing_portal.configurations.list_async({"is_default": True, "limit": 1})
            return bool(found.data)

    def forget_refusals(self, seconds: float) -> None:
        """Take no refusal for granted that is so old: what is refused again will say so."""
        for operation, (_, refused_at) in list(self.forbidden.items()):
            if refused_at < monotonic() - seconds:
                self._allowed(operation)

    async def _was_deleted(self, customer_id: str) -> bool:
        try:
            async with self._call("retrieve_customer"):
                customer = await self._api.customers.retrieve_async(customer_id)
                return bool(getattr(customer, "deleted", False))
        except StripeFault as fault:
            if fault.reason != "resource_missing":
                raise
            return False

    @asynccontextmanager
    async def _call(self, operation: str) -> AsyncIterator[None]:
        """Bound an operation in time, measure it, and turn whatever comes of it into a StripeFault."""
        began = monotonic()
        outcome = "cancelled"
        try:
            async with asyncio.timeout(CALL_SECONDS):
                yield
            outcome = "ok"
            self._allowed(operation)
        except Exception as error:
            fault = fault_of(error)
            outcome = "refused" if fault.lasting else "away"
            log.warning(
                "stripe_failed",
                operation=operation,
                reason=fault.reason,
                permission=fault.permission,
                error=type(error).__name__,
            )
            if fault.forbidden:
                self.forbidden[operation] = (fault.why, monotonic())
                metrics.STRIPE_FORBIDDEN.labels(operation).set(1)
            raise fault from error
        finally:
            metrics.STRIPE_SECONDS.labels(operation, outcome).observe(monotonic() - began)

    def _allowed(self, operation: str) -> None:
        if self.forbidden.pop(operation, None) is not None:
            metrics.STRIPE_FORBIDDEN.labels(operation).set(0)


def _owner(session: stripe.checkout.Session) -> str | None:
    """The user whom we have named at the making of a session; None when it was made otherwise."""
    return getattr(session, "client_reference_id", None)


async def _once_free(create: Callable[[], Awaitable[T]]) -> T:
    """Create something under an idempotency key, which may be in use by another call for the same thing just now."""
    while True:
        try:
            return await create()
        except stripe.APIError as error:
            if error.http_status != CONFLICT:
                raise
        await asyncio.sleep(IN_USE_SECONDS)


def _key(what: str, attempt: int, *parts: object) -> str:
    """An idempotency key that is the same for the same attempt at the same thing.

    https://docs.stripe.com/api/idempotent_requests
    """
    told = (*parts, f"attempt {attempt}") if attempt else parts
    digest = sha256("\n".join(str(part) for part in told).encode()).hexdigest()
    return f"gembackend-{what}-{digest[:40]}"
