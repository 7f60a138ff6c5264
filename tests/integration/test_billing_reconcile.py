"""What no webhook told is found at the start and every hour."""

import asyncio
import time
from typing import Any

import pytest

from gembackend.billing import inbox_store, rules, sync_store
from gembackend.billing.reconcile import AGAIN_SECONDS, INTERVAL_SECONDS, Reconciler
from gembackend.embedded.stripe import Behaviour, Call
from gembackend.plumbing import metrics
from tests.billing import Buyer, Shop, selling_at, settings, shop, shop_at, stand_in
from tests.processes import until
from tests.whole import whole_service


def reconciler(store: Shop) -> Reconciler:
    """The shop's own."""
    found = store.billing.actors[1]
    assert isinstance(found, Reconciler)
    return found


async def test_events_missed_while_the_service_was_down_are_found_at_the_start(
    database_url: str, redis_url: str
) -> None:
    async with stand_in() as stripe:
        chosen = settings(database_url, redis_url, stripe)
        async with shop_at(chosen, stripe) as store:
            buyer = await store.buyer()
            started = await buyer.subscribe()
        stripe.deliveries.automatic = False
        stripe.account.pay(started["session_id"])
        assert all(event["pending_webhooks"] for event in stripe.account.events.values())
        async with shop_at(chosen, stripe) as store:
            await Buyer(store.client, buyer.token, buyer.id).becomes("Pro")
            await store.settled()
            assert await store.value("SELECT count(*) FROM billing_events WHERE status = 'processed'") == 3


async def test_reconciling_again_finds_nothing(database_url: str, redis_url: str) -> None:
    async with shop(database_url, redis_url) as store:
        await store.pro()
        await store.settled()
        found = await reconciler(store).run_once()
        assert (found.events, found.customers, found.removed) == (0, 0, 0)
        assert reconciler(store).interval == INTERVAL_SECONDS == 3600


async def aged(store: Shop, seconds: float) -> None:
    """Let the last look at every customer be so long ago."""
    await store.value("UPDATE billing_customers SET synced_at = synced_at - make_interval(secs => $1)", seconds)


@pytest.mark.parametrize("kind", ["stale", "period over", "checkout"])
async def test_what_was_not_looked_at_for_too_long_is_fetched_and_drift_is_counted(
    database_url: str, redis_url: str, kind: str
) -> None:
    async with shop(database_url, redis_url) as store:
        buyer, subscription = await store.pro() if kind != "checkout" else (await store.buyer(), None)
        started: Any = None if subscription else await buyer.subscribe()
        await store.settled()
        store.stripe.deliveries.lost = lambda _: True
        if subscription is None:
            store.stripe.account.pay(started["session_id"])
            await aged(store, 3700)
        elif kind == "stale":
            store.stripe.account.cancel(subscription["id"])
            await aged(store, 86_500)
        else:
            store.stripe.account.cancel(subscription["id"])
            await aged(store, 60)
            await store.value("UPDATE billing_subscriptions SET current_period_end = now() - interval '30 seconds'")
        for event in store.stripe.account.events.values():
            event["pending_webhooks"] = 0  # as far as Stripe knows, everything has arrived
        drift = metrics.BILLING_DRIFT._value.get()
        found = await reconciler(store).run_once()
        assert (found.events, found.customers) == (0, 1)
        await buyer.becomes("Pro" if subscription is None else "Basic")
        await store.settled()
        assert metrics.BILLING_DRIFT._value.get() == drift + 1


async def test_drift_is_counted_though_the_first_try_to_fetch_it_fails(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "retry_seconds", lambda _: 0.0)
    async with shop(database_url, redis_url) as store:
        buyer, subscription = await store.pro()
        await store.settled()
        store.stripe.deliveries.lost = lambda _: True
        store.stripe.account.cancel(subscription["id"])
        for event in store.stripe.account.events.values():
            event["pending_webhooks"] = 0
        await aged(store, 86_500)
        away = True
        store.stripe.rule(lambda call: Behaviour(status=503) if away and call.path == "/v1/subscriptions" else None)

        async def failed() -> bool:
            return bool(await store.value("SELECT failures > 0 FROM billing_customers"))

        drift = metrics.BILLING_DRIFT._value.get()
        assert (await reconciler(store).run_once()).customers == 1
        await until(failed, "a sync that failed")
        away = False
        await buyer.becomes("Basic")
        await store.settled()
        assert metrics.BILLING_DRIFT._value.get() == drift + 1


async def test_a_look_that_finds_nothing_new_is_no_drift(database_url: str, redis_url: str) -> None:
    async with shop(database_url, redis_url) as store:
        await store.pro()
        await store.settled()
        await aged(store, 86_500)
        drift = metrics.BILLING_DRIFT._value.get()
        assert (await reconciler(store).run_once()).customers == 1
        await store.settled()
        assert metrics.BILLING_DRIFT._value.get() == drift


async def test_old_events_are_removed_in_the_end(database_url: str, redis_url: str) -> None:
    async with shop(database_url, redis_url) as store:
        await store.pro()
        await store.settled()
        await store.value(
            "UPDATE billing_events SET finished_at = now() - interval '91 days' WHERE type LIKE 'invoice%'"
        )
        assert (await reconciler(store).run_once()).removed == 1
        assert await store.value("SELECT count(*) FROM billing_events") == 2


async def test_a_turn_that_stripe_spoils_comes_again_soon(database_url: str, redis_url: str) -> None:
    async with stand_in() as stripe:
        stripe.rule(lambda _: Behaviour(status=503))
        async with shop_at(settings(database_url, redis_url, stripe), stripe) as store:

            async def failed() -> bool:
                return "missed_events" in reconciler(store).troubles

            await until(failed, "a turn that fails")
            assert reconciler(store).interval == AGAIN_SECONDS


def events_refused(call: Call) -> Behaviour | None:
    """A restricted key without the permission to read events."""
    return Behaviour(status=403) if call.path == "/v1/events" else None


def failing(step: str) -> float:
    return float(metrics.RECONCILIATION_FAILING.labels(step)._value.get())


async def test_a_key_that_may_not_read_events_keeps_nothing_else_from_being_found(
    database_url: str, redis_url: str
) -> None:
    async with shop(database_url, redis_url) as store:
        buyer, subscription = await store.pro()
        await store.settled()
        assert store.billing.trouble is None
        store.stripe.rule(events_refused)
        store.stripe.deliveries.lost = lambda _: True
        store.stripe.account.cancel(subscription["id"])
        await aged(store, 3700)
        await store.value("UPDATE billing_events SET finished_at = now() - interval '91 days'")
        found = await reconciler(store).run_once()
        assert (found.events, found.customers, found.removed) == (0, 1, 3)
        await buyer.becomes("Basic")
        assert reconciler(store).interval == AGAIN_SECONDS
        assert reconciler(store).troubles == {"missed_events": "permission_missing rak_event_read"}
        assert store.billing.trouble == "Stripe refuses list_events (permission_missing rak_event_read)"
        assert failing("missed_events") == metrics.STRIPE_FORBIDDEN.labels("list_events")._value.get() == 1
        assert failing("stale_customers") == failing("old_events") == 0

        store.stripe.rule(lambda _: Behaviour())
        assert (await reconciler(store).run_once()).events == 1
        assert store.billing.trouble is None
        assert failing("missed_events") == metrics.STRIPE_FORBIDDEN.labels("list_events")._value.get() == 0
        assert reconciler(store).interval == INTERVAL_SECONDS


async def test_a_service_whose_key_may_not_read_events_says_so_and_is_ready(database_url: str, redis_url: str) -> None:
    async with stand_in() as stripe:
        stripe.rule(events_refused)
        async with whole_service(database_url, redis_url, **selling_at(stripe)) as whole:
            await stripe.wait_until(lambda: any(call.path == "/v1/events" for call in stripe.done))

            async def told() -> bool:
                answer = await whole.client.call("GET", "/readyz")
                assert answer.status == 200
                payments = answer.body["checks"]["payments"]
                return answer.body["status"] == "degraded" and "rak_event_read" in payments.get("detail", "")

            await until(told, "degraded, and why")


async def test_while_events_can_be_read_subscriptions_are_trusted_for_a_day(database_url: str, redis_url: str) -> None:
    async with shop(database_url, redis_url) as store:
        await store.pro()
        await store.settled()
        await aged(store, 3700)
        assert (await reconciler(store).run_once()).customers == 0


async def test_a_step_with_a_defect_neither_stops_the_others_nor_the_process(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> int:
        raise ZeroDivisionError

    async with shop(database_url, redis_url) as store:
        await store.pro()
        await store.settled()
        monkeypatch.setattr(inbox_store, "ask_for_stale", broken)
        await store.value("UPDATE billing_events SET finished_at = now() - interval '91 days'")
        found = await reconciler(store).run_once()
        assert (found.customers, found.removed) == (0, 3)
        assert reconciler(store).troubles == {"stale_customers": "internal"}
        assert store.billing.trouble == "reconciliation cannot see to stale_customers (internal)"


ODD = {
    "no id": {"id": None},
    "no time": {"created": None},
    "a time in words": {"created": "2026-05-01T12:00:00Z"},
    "no data": {"data": None},
    "data in words": {"data": "changed"},
    "data without an object": {"data": {"object": None}},
    "an object with an ill-typed id": {"data": {"object": {"object": "subscription", "id": {"a": 1}}}},
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
async def test_an_odd_event_keeps_no_other_from_being_found(
    database_url: str, redis_url: str, odd: dict[str, Any]
) -> None:
    async with stand_in() as stripe:
        stripe.deliveries.automatic = False
        chosen = settings(database_url, redis_url, stripe)
        async with shop_at(chosen, stripe, actors=False) as store:
            customers = [await store.bare_customer() for _ in range(2)]
            for customer in customers:
                stripe.account.subscribe(customer)
            odd_one = stripe.account.add(
                "events", "evt", "event", type="invoice.paid", pending_webhooks=1, data={"object": {}}
            )
            odd_one |= odd
            unreadable = metrics.BILLING_EVENTS.labels("unreadable")._value.get()
            assert (await reconciler(store).run_once()).events == 2
            assert reconciler(store).troubles == {}
            assert metrics.BILLING_EVENTS.labels("unreadable")._value.get() == unreadable + 1


async def test_a_page_of_events_that_fails_does_not_take_the_pages_before_it_along(
    database_url: str, redis_url: str
) -> None:
    async with stand_in() as stripe:
        stripe.deliveries.automatic = False
        async with shop_at(settings(database_url, redis_url, stripe), stripe, actors=False) as store:
            customer = await store.bare_customer()
            for _ in range(130):
                stripe.account.subscribe(customer)
            stripe.rule(lambda call: Behaviour(status=503) if "starting_after" in call.params else None)
            await reconciler(store).run_once()
            assert "missed_events" in reconciler(store).troubles
            assert await store.value("SELECT count(*) FROM billing_events") == 100
            stripe.rule(lambda _: Behaviour())
            assert (await reconciler(store).run_once()).events == 30


async def test_the_age_of_the_oldest_event_is_measured(database_url: str, redis_url: str) -> None:
    async with shop(database_url, redis_url) as store:
        customer = await store.bare_customer()
        held = asyncio.Event()
        store.stripe.rule(lambda call: Behaviour(hold=held) if call.path == "/v1/subscriptions" else None)
        began = time.time()
        store.stripe.account.subscribe(customer)

        async def seen() -> bool:
            return metrics.BILLING_OLDEST_SECONDS._value.get() > 0.1

        await until(seen, "an age")
        assert metrics.BILLING_OLDEST_SECONDS._value.get() <= time.time() - began
        held.set()
        await store.settled()

        async def none_left() -> bool:
            return bool(metrics.BILLING_OLDEST_SECONDS._value.get() == 0)

        await until(none_left, "no age")


async def test_events_come_before_what_is_only_old(database_url: str, redis_url: str) -> None:
    async with stand_in() as stripe:
        stripe.deliveries.automatic = False
        async with shop_at(settings(database_url, redis_url, stripe), stripe, actors=False) as store:
            old, told = await store.bare_customer(), await store.bare_customer()
            await store.value(
                "UPDATE billing_customers SET sync_at = now() - interval '1 hour', reconciling = true WHERE id = $1",
                old,
            )
            stripe.account.subscribe(told)
            await store.take(next(iter(stripe.account.events.values())))
            async with store.database.transaction() as connection:
                claims = [(await sync_store.claim_due(connection, 1))[0].customer_id for _ in range(2)]
            assert claims == [told, old]
