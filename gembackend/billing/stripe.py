"""The only door to stripe-python: its asynchronous client on its aiohttp transport, with typed values and faults."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from time import monotonic
from uuid import UUID

import aiohttp
import msgspec
import stripe

from gembackend.billing.faults import CustomerMissing, StripeFault
from gembackend.billing.models import StripeEvent
from gembackend.billing.rules import RELEVANT_TYPES, Subscription, at
from gembackend.plumbing import logs, metrics

log = logs.logger(__name__)

API_VERSION = "2026-10-28.endive"
"""What this code was written for. https://docs.stripe.com/api/versioning"""
CALL_SECONDS = 10.0
"""How long one operation may take, its retry and all its pages included."""
RETRIES = 1
"""Made by the SDK itself, under the same idempotency key, when a connection fails and after 409 and 5xx."""
MOST_EVENTS = 2000
"""How many undelivered events are read at a time."""

_CODE = re.compile(r"[a-z_]{1,64}")


@dataclass(frozen=True, slots=True)
class CheckoutSession:
    """A Checkout session: `url` is where to pay, while it is open."""

    id: str
    open: bool
    url: str | None


class Stripe:
    """What the service wants of Stripe. Every method raises StripeFault; use within one event loop and `close`.

    `api_base` is another base URL of the API, None for Stripe's.
    """

    def __init__(self, secret_key: str, price_id: str, *, api_base: str | None = None) -> None:
        # The library's own settings: no timings of ours to Stripe, and no file in the home directory for it.
        stripe.enable_telemetry = False
        self._price_id = price_id
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

    async def create_customer(self, user_id: UUID, *, after: str | None) -> str:
        """Make a user's customer, or the next one `after` another; the same call again gives the same customer."""
        async with self._call("create_customer"):
            customer = await self._api.customers.create_async(
                {"metadata": {"user_id": str(user_id)}}, {"idempotency_key": _key("customer", user_id, after)}
            )
        return customer.id

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
                return [_subscription(each) async for each in found.auto_paging_iter()]
        except CustomerMissing as fault:
            raise CustomerMissing(deleted=await self._was_deleted(customer_id)) from fault

    async def cancel_at_period_end(self, subscription_id: str) -> None:
        """Let a subscription end with the period that is paid for."""
        async with self._call("cancel_subscription"):
            await self._api.subscriptions.update_async(subscription_id, {"cancel_at_period_end": True})

    async def create_checkout(
        self, customer_id: str, user_id: UUID, *, success_url: str, cancel_url: str, after: str | None
    ) -> CheckoutSession:
        """Open a Checkout session for the Pro price, the next one `after` another; the same call gives the same one."""
        key = _key("checkout", customer_id, after, self._price_id, success_url, cancel_url)
        async with self._call("create_checkout"):
            session = await self._api.checkout.sessions.create_async(
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
            return _checkout(session)

    async def checkout(self, session_id: str) -> CheckoutSession | None:
        """A Checkout session as it is now; None when Stripe does not know it."""
        try:
            async with self._call("retrieve_checkout"):
                return _checkout(await self._api.checkout.sessions.retrieve_async(session_id))
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

    async def undelivered_events(self) -> list[StripeEvent]:
        """Events that matter and that no webhook has taken, newest first; Stripe keeps them for 30 days."""
        events: list[StripeEvent] = []
        async with self._call("list_events"):
            found = await self._api.events.list_async(
                {"delivery_success": False, "types": list(RELEVANT_TYPES), "limit": 100}
            )
            async for each in found.auto_paging_iter():
                events.append(msgspec.convert(each.to_dict(), StripeEvent))
                if len(events) == MOST_EVENTS:
                    break
        return events

    async def describe_price(self) -> str:
        """The price for a person to read; raises StripeFault when Stripe does not know it or does not sell it so."""
        async with self._call("retrieve_price"):
            price = await self._api.prices.retrieve_async(self._price_id)
        if not price.active or price.recurring is None:
            raise StripeFault("price_not_active_and_recurring", lasting=True)
        amount = f"{(price.unit_amount or 0) / 100:.2f} {price.currency}"
        mode = "live" if price.livemode else "test"
        return f"{price.id}, {amount} a {price.recurring.interval}, {mode} mode"

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
        except Exception as error:
            fault = _fault(error)
            outcome = "refused" if fault.lasting else "away"
            log.warning("stripe_failed", operation=operation, reason=fault.reason, error=type(error).__name__)
            raise fault from error
        finally:
            metrics.STRIPE_SECONDS.labels(operation, outcome).observe(monotonic() - began)


def _fault(error: Exception) -> StripeFault:
    """What an exception out of the SDK, its transport or our reading of an answer means."""
    match error:
        case TimeoutError():
            return StripeFault("timeout")
        case stripe.InvalidRequestError():
            if error.code == "resource_missing" and error.param == "customer":
                return CustomerMissing()
            known = isinstance(error.code, str) and _CODE.fullmatch(error.code)
            return StripeFault(str(error.code) if known else "invalid_request", lasting=True)
        case stripe.AuthenticationError() | stripe.PermissionError():
            # The operator's to mend: nothing is wrong with what was asked for.
            return StripeFault("key_refused")
        case stripe.RateLimitError():
            return StripeFault("rate_limited")
        case stripe.APIConnectionError() | aiohttp.ClientError() | OSError():
            return StripeFault("unreachable")
        case stripe.StripeError():
            return StripeFault("server_error")
        case _:
            log.error("stripe_answer_unexpected", exc_info=error)
            return StripeFault("unexpected_answer", lasting=True)


def _key(what: str, *parts: object) -> str:
    """An idempotency key that is the same for the same request. https://docs.stripe.com/api/idempotent_requests"""
    digest = sha256("\n".join(str(part) for part in parts).encode()).hexdigest()
    return f"gembackend-{what}-{digest[:40]}"


def _checkout(session: stripe.checkout.Session) -> CheckoutSession:
    return CheckoutSession(session.id, session.status == "open" and session.url is not None, session.url)


def _subscription(found: stripe.Subscription) -> Subscription:
    """A subscription as we read it. Since 2025-03-31.basil the period belongs to the items."""
    items = found.items.data
    period_end = max((each.current_period_end for each in items), default=None)
    cancel_at = found.cancel_at or (period_end if found.cancel_at_period_end else None)
    return Subscription(
        id=found.id,
        status=found.status,
        price_ids=tuple(each.price.id for each in items),
        current_period_end=at(period_end) if period_end else None,
        cancel_at=at(cancel_at) if cancel_at else None,
        created_at=at(found.created),
    )
