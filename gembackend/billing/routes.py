"""Subscriptions over HTTP, Stripe's webhook, and the pages for people who come back from Stripe."""

import re
from collections.abc import Awaitable, Callable
from uuid import UUID

from aiohttp import hdrs, web

from gembackend.billing import pages
from gembackend.billing.faults import not_set_up
from gembackend.billing.models import CheckoutStarted, Portal, Received, StripeEvent, SubscriptionStatus
from gembackend.billing.room import Billing
from gembackend.billing.subscriptions import Standings, Subscriptions
from gembackend.plumbing.faults import CodeName, Fault
from gembackend.web.body import json_reply, read_bytes
from gembackend.web.routing import Parameter, Route
from gembackend.web.session import session_of

GROUP = "Subscription"
WEBHOOK_BYTES = 256 * 1024

STRIPE_SIGNATURE = Parameter(
    "Stripe-Signature",
    "header",
    "Stripe's signature over the raw body: a time and one or more HMACs.",
    str,
    "t=1769847330,v1=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd",
)
CHECKOUT_SESSION = Parameter(
    "session_id", "query", "The Checkout session that the person comes back from.", str, "cs_test_a1B2c3D4"
)

_SESSION_ID = re.compile(r"cs_[A-Za-z0-9_]{1,250}")


class BillingRoutes:
    """The endpoints of payments; `billing` is None in a service that takes none, which says so.

    `admit` counts a request of some kind by somebody, and raises Fault("rate_limited") when it is one too many.
    """

    def __init__(
        self, billing: Billing | None, standings: Standings, admit: Callable[[str, str], Awaitable[None]]
    ) -> None:
        self._billing = billing
        self._standings = standings
        self._admit = admit

    def table(self) -> list[Route]:
        """What is where."""
        away: tuple[CodeName, ...] = ("payments_unavailable",)
        calling: tuple[CodeName, ...] = ("rate_limited", *away)
        return [
            Route(
                "POST",
                "/v1/subscribe/pro",
                self.subscribe,
                "Begin a Pro subscription at Stripe",
                reply=CheckoutStarted,
                errors=("already_subscribed", *calling),
                group=GROUP,
            ),
            Route(
                "POST",
                "/v1/subscription/portal",
                self.portal,
                "Open Stripe's page to manage the subscription",
                reply=Portal,
                errors=("not_subscribed", *calling),
                group=GROUP,
            ),
            Route(
                "POST",
                "/v1/subscription/cancel",
                self.cancel,
                "End the subscription with the period that is paid for",
                reply=SubscriptionStatus,
                errors=("not_subscribed", *calling),
                group=GROUP,
            ),
            Route(
                "GET",
                "/v1/subscription/status",
                self.status,
                "The tier and the subscription behind it",
                reply=SubscriptionStatus,
                group=GROUP,
            ),
            Route(
                "POST",
                "/v1/webhook/stripe",
                self.webhook,
                "Take an event from Stripe",
                reply=Received,
                session=False,
                errors=(
                    "invalid_signature",
                    "thin_event",
                    "payload_too_large",
                    "unsupported_media_type",
                    "database_unavailable",
                    *away,
                ),
                raw_body=StripeEvent,
                parameters=(STRIPE_SIGNATURE,),
                group=GROUP,
                description="Take an event from Stripe: verify its signature, store it, and only then acknowledge it.",
            ),
            Route(
                "GET",
                "/checkout/success",
                self.success,
                "The page after Stripe's Checkout",
                session=False,
                media=("text/html",),
                parameters=(CHECKOUT_SESSION,),
                group=GROUP,
            ),
            Route(
                "GET",
                "/checkout/cancel",
                self.cancelled,
                "The page after leaving Checkout",
                session=False,
                media=("text/html",),
                group=GROUP,
            ),
        ]

    async def subscribe(self, request: web.Request) -> web.StreamResponse:
        """A Checkout session to pay in; the same one while it is open."""
        subscriptions, user_id = await self._admitted(request)
        return json_reply(await subscriptions.subscribe(user_id))

    async def portal(self, request: web.Request) -> web.StreamResponse:
        """A session of Stripe's customer portal."""
        subscriptions, user_id = await self._admitted(request)
        return json_reply(Portal(url=await subscriptions.open_portal(user_id)))

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Let the subscription end with its period."""
        subscriptions, user_id = await self._admitted(request)
        return json_reply(await subscriptions.cancel(user_id))

    async def status(self, request: web.Request) -> web.StreamResponse:
        """The tier and the subscription, from the database's truth."""
        return json_reply(await self._standings.of(session_of(request).user_id))

    async def webhook(self, request: web.Request) -> web.StreamResponse:
        """Verify an event, store it, and only then acknowledge it."""
        inbox = self._open().inbox
        raw = await read_bytes(request, limit=WEBHOOK_BYTES)
        await inbox.take(raw, ",".join(request.headers.getall("Stripe-Signature", [])))
        return json_reply(Received(received=True))

    async def success(self, request: web.Request) -> web.StreamResponse:
        """The page after Checkout: it has Stripe asked, and believes nothing itself."""
        session_id = request.query.get("session_id", "")
        pro = False
        if self._billing is not None and _SESSION_ID.fullmatch(session_id):
            try:
                pro = await self._billing.subscriptions.come_back(session_id)
            except Fault:
                pro = False  # the page says that it may take a moment
        return _html(pages.success(pro=pro))

    async def cancelled(self, _request: web.Request) -> web.StreamResponse:
        """The page for somebody who left Checkout without paying."""
        return _html(pages.cancelled())

    async def _admitted(self, request: web.Request) -> tuple[Subscriptions, UUID]:
        """What calls Stripe for a user, and whose request this is, once the user's limit lets it pass."""
        subscriptions, user_id = self._open().subscriptions, session_of(request).user_id
        await self._admit("payments", str(user_id))
        return subscriptions, user_id

    def _open(self) -> Billing:
        if self._billing is None:
            raise not_set_up()
        return self._billing


def _html(page: str) -> web.Response:
    return web.Response(text=page, content_type="text/html", headers={hdrs.CONTENT_SECURITY_POLICY: pages.POLICY})
