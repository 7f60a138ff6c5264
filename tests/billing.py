"""The payments part of the service on a listener of its own, with a Stripe stand-in, and users who buy."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from gembackend import config
from gembackend.actors import Supervisor
from gembackend.auth.limits import RateLimits
from gembackend.billing import store
from gembackend.billing.room import REQUESTS, Billing, plan_of
from gembackend.billing.routes import BillingRoutes
from gembackend.billing.subscriptions import Standings
from gembackend.embedded.stripe import StripeStandIn
from gembackend.embedded.stripe_state import shown
from gembackend.embedded.stripe_wire import Object, signature
from gembackend.plumbing.ids import new_id
from gembackend.plumbing.postgres import Database
from gembackend.web.routing import Route
from tests import accounts
from tests.accounts import Answer, Client
from tests.processes import until

PUBLIC = "http://chat.example"


def selling_at(stripe: StripeStandIn) -> dict[str, str]:
    """The environment of a service that sells at the stand-in."""
    return {
        "STRIPE_SECRET_KEY": stripe.secret_key,
        "PRO_PRICE_ID": stripe.account.price_id,
        "STRIPE_WEBHOOK_SIGNING_SECRET": stripe.account.webhook_secret,
        "STRIPE_API_BASE": stripe.url,
        "PUBLIC_BASE_URL": PUBLIC,
    }


def settings(database_url: str, redis_url: str, stripe: StripeStandIn, **environment: str) -> config.Settings:
    """Settings that sell at the stand-in."""
    return accounts.settings(database_url, redis_url, **(selling_at(stripe) | environment))


class Buyer:
    """A logged-in user."""

    def __init__(self, client: Client, token: str, user_id: UUID) -> None:
        self.client = client
        self.token = token
        self.id = user_id

    async def post(self, path: str) -> Answer:
        """Call an endpoint that takes no body."""
        return await self.client.call("POST", path, token=self.token)

    async def subscribe(self) -> Any:
        """Open a Checkout session."""
        answer = await self.post("/v1/subscribe/pro")
        assert answer.status == 200, answer.body
        return answer.body

    async def status(self) -> Any:
        """What the service says of the subscription."""
        answer = await self.client.call("GET", "/v1/subscription/status", token=self.token)
        assert answer.status == 200, answer.body
        return answer.body

    async def tier(self) -> str:
        """The tier that the user's own page shows."""
        answer = await self.client.call("GET", "/v1/user/me", token=self.token)
        assert answer.status == 200, answer.body
        return str(answer.body["subscription_tier"])

    async def becomes(self, tier: str, seconds: float = 10) -> None:
        """Wait for a tier."""

        async def reached() -> bool:
            return await self.tier() == tier

        await until(reached, f"the tier {tier}", seconds)


class Shop:
    """One process's worth of payments: a listener, its actors, and what a test wants of them."""

    def __init__(
        self, stripe: StripeStandIn, client: Client, billing: Billing, database: Database, database_url: str
    ) -> None:
        self.stripe = stripe
        self.client = client
        self.billing = billing
        self.database = database
        self.database_url = database_url

    async def buyer(self) -> Buyer:
        """A new user."""
        token = await self.client.join()
        me = await self.client.call("GET", "/v1/user/me", token=token)
        return Buyer(self.client, token, UUID(me.body["id"]))

    async def customer(self, buyer: Buyer) -> str:
        """The user's customer at Stripe, made as subscribing makes it."""
        await buyer.subscribe()
        return str(await self.value("SELECT id FROM billing_customers WHERE user_id = $1", buyer.id))

    async def bare_customer(self) -> str:
        """A customer of a user who has never logged in."""
        user_id, customer_id = new_id(), str(self.stripe.account.create_customer({})["id"])
        async with self.database.connection() as connection:
            await connection.execute(
                "INSERT INTO users (id, phone, password_hash) VALUES ($1, $2, 'x')", user_id, accounts.new_phone()
            )
            await store.keep_customer(connection, user_id, customer_id)
        return customer_id

    async def pro(self) -> tuple[Buyer, Object]:
        """A new user who has paid, and the subscription."""
        buyer = await self.buyer()
        session = self.stripe.account.pay((await buyer.subscribe())["session_id"])
        await buyer.becomes("Pro")
        return buyer, self.stripe.account.subscription(session["subscription"])

    async def value(self, statement: str, *arguments: Any) -> Any:
        """The first column of the first row."""
        async with self.database.connection() as connection:
            return await connection.fetchval(statement, *arguments)

    async def take(self, event: Object) -> None:
        """Let the inbox take an event, without the HTTP around it."""
        raw = json.dumps(shown(event)).encode()
        await self.billing.inbox.take(raw, signature(raw, self.stripe.account.webhook_secret, time.time()))

    async def post_event(self, body: Object | bytes, signed: str | None = None) -> Answer:
        """Post a webhook; the signature is a good one unless another is given."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        header = signature(raw, self.stripe.account.webhook_secret, time.time()) if signed is None else signed
        async with self.client.http.post(
            "/v1/webhook/stripe", data=raw, headers={"Stripe-Signature": header}
        ) as response:
            return Answer(response.status, dict(response.headers), await response.json())

    async def settled(self, seconds: float = 20) -> None:
        """Wait until no event is on its way or waits, and no customer is being synced or due."""

        async def nothing_left() -> bool:
            return not self.stripe.deliveries.under_way and bool(
                await self.value(
                    """
                    SELECT NOT EXISTS (SELECT FROM billing_events WHERE status = 'pending') AND NOT EXISTS (
                        SELECT FROM billing_customers WHERE sync_at IS NOT NULL OR lease_until IS NOT NULL
                            OR user_id IS NULL)
                    """
                )
            )

        await until(nothing_left, "nothing left to sync", seconds)

    async def idle(self) -> None:
        """Wait until nothing that this process has begun is still under way, overtaken or not."""

        async def at_rest() -> bool:
            return not self.billing._syncer._running

        await until(at_rest, "every sync ended")


@asynccontextmanager
async def stand_in(**options: Any) -> AsyncIterator[StripeStandIn]:
    """A Stripe stand-in that listens."""
    stripe = StripeStandIn(**options)
    await stripe.start()
    try:
        yield stripe
    finally:
        await stripe.stop()


def routes(service: accounts.Service, billing: Billing | None) -> Sequence[Route]:
    """The routes of payments, or of a service that takes none, with the limits of the real one."""
    standings = Standings(service.database, plan_of(service.settings))
    return BillingRoutes(billing, standings, RateLimits(service.redis, REQUESTS).admit).table()


@asynccontextmanager
async def shop_at(chosen: config.Settings, stripe: StripeStandIn, *, actors: bool = True) -> AsyncIterator[Shop]:
    """One process over whatever database and stand-in; webhooks go to the newest."""
    service = accounts.Service(chosen)
    billing = Billing(chosen, service.database)
    supervisor = Supervisor(billing.actors if actors else ())
    async with service.running(routes(service, billing)) as client:
        stripe.deliveries.url = f"{client.base}/v1/webhook/stripe"
        await supervisor.start()
        try:
            yield Shop(stripe, client, billing, service.database, chosen.database_url or "")
        finally:
            await supervisor.stop(asyncio.get_running_loop().time() + 5)
            await billing.close()


@asynccontextmanager
async def shop(database_url: str, redis_url: str, **environment: str) -> AsyncIterator[Shop]:
    """A process with a stand-in of its own."""
    async with (
        stand_in() as stripe,
        shop_at(settings(database_url, redis_url, stripe, **environment), stripe) as opened,
    ):
        yield opened
