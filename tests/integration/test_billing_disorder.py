"""Events repeated, reordered and overtaken by slow fetches: in the end it is always the state that Stripe has."""

import asyncio
import random
from collections.abc import Callable

import pytest

from gembackend.billing import sync_store
from gembackend.embedded.stripe import Behaviour, Call
from gembackend.embedded.stripe_account import Account
from gembackend.embedded.stripe_wire import Object
from gembackend.plumbing import metrics
from tests.billing import Shop, settings, shop_at, stand_in

ORDERS = 100
EVENTS = 30
AT_A_TIME = 20


def changes(account: Account, customer: str, rng: random.Random) -> list[Callable[[], object]]:
    """The life of a customer: changes that make exactly EVENTS events, ending in a random state."""
    made: list[str] = []

    def begin() -> None:
        made.append(account.subscribe(customer, status=rng.choice(["incomplete", "active", "trialing"]))["id"])

    def change() -> None:
        status = rng.choice(["active", "active", "past_due", "unpaid", "paused", "canceled", "incomplete_expired"])
        end = rng.choice([True, False])
        subscription = account.subscription(rng.choice(made))
        period_end = subscription["items"]["data"][0]["current_period_end"] + rng.choice([0, 0, 86_400])
        subscription["items"]["data"][0]["current_period_end"] = period_end
        account.change(
            subscription["id"], status=status, cancel_at_period_end=end, cancel_at=period_end if end else None
        )

    return [begin] + [change if rng.random() < 0.9 else begin for _ in range(EVENTS - 1)]


async def live_through(store: Shop, customer: str, seed: int) -> None:
    """Let a customer's life happen while its events arrive, each one to three times and in any order after it."""
    rng = random.Random(seed)
    account = store.stripe.account
    waiting: list[Object] = []
    for change in changes(account, customer, rng):
        change()
        waiting += [list(account.events.values())[-1]] * rng.randint(1, 3)
        rng.shuffle(waiting)
        for _ in range(rng.randint(0, 4)):
            if waiting:
                await store.take(waiting.pop())
    for event in waiting:
        await store.take(event)


async def stored(store: Shop, customer: str) -> set[tuple[object, ...]]:
    async with store.database.connection() as connection:
        rows = await connection.fetch(
            """
            SELECT id, status, extract(epoch FROM current_period_end)::bigint, extract(epoch FROM cancel_at)::bigint
            FROM billing_subscriptions WHERE customer_id = $1
            """,
            customer,
        )
    return {tuple(row) for row in rows}


def at_stripe(account: Account, customer: str) -> set[tuple[object, ...]]:
    return {
        (each["id"], each["status"], each["items"]["data"][0]["current_period_end"], each["cancel_at"])
        for each in account.subscriptions.values()
        if each["customer"] == customer
    }


async def test_thirty_events_up_to_three_times_in_a_hundred_orders(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes; some answers are old when they arrive, some so old that the lease has run out."""
    rng = random.Random(1)
    monkeypatch.setattr(sync_store, "LEASE_SECONDS", 0.1)

    def slow(call: Call) -> Behaviour | None:
        if call.path != "/v1/subscriptions" or rng.random() < 0.7:
            return None
        return Behaviour(delay=rng.choice([0.01, 0.05, 0.2, 1.0]))

    async with (
        stand_in() as stripe,
        shop_at(settings(database_url, redis_url, stripe), stripe) as other,
        shop_at(settings(database_url, redis_url, stripe), stripe) as store,
    ):
        stripe.deliveries.automatic = False
        processed = metrics.BILLING_EVENTS.labels("processed")._value.get()
        stripe.rule(slow)
        customers = [await store.bare_customer() for _ in range(ORDERS)]
        gate = asyncio.Semaphore(AT_A_TIME)

        async def one(number: int) -> None:
            async with gate:
                await live_through(store, customers[number], number)

        await asyncio.gather(*(one(number) for number in range(ORDERS)))
        await store.settled()
        await other.idle()
        await store.idle()
        for customer in customers:
            assert await stored(store, customer) == at_stripe(stripe.account, customer)
        assert await store.value("SELECT array_agg(DISTINCT status) FROM billing_events") == ["processed"]
        assert await store.value("SELECT count(*) FROM billing_events") == ORDERS * EVENTS
        assert metrics.BILLING_EVENTS.labels("processed")._value.get() - processed == ORDERS * EVENTS
        wrong = await store.value(
            """
            SELECT count(*) FROM users u WHERE current_tier(u.subscription_tier, u.pro_until) <> CASE WHEN EXISTS (
                SELECT FROM billing_subscriptions s JOIN billing_customers c ON c.id = s.customer_id
                WHERE c.user_id = u.id AND s.status IN ('active', 'trialing', 'past_due')
            ) THEN 'Pro' ELSE 'Basic' END
            """
        )
        assert wrong == 0
