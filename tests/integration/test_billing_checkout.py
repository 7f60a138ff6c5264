"""Subscribing, the portal, cancelling and coming back, over HTTP, with Stripe well, slow and away."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from gembackend.billing import stripe as stripe_client
from gembackend.billing import subscriptions
from gembackend.billing.room import REQUESTS
from gembackend.embedded.stripe import Behaviour, Call
from tests import accounts, billing
from tests.billing import PUBLIC, Shop, shop
from tests.processes import until


@pytest.fixture
async def store(database_url: str, redis_url: str) -> AsyncIterator[Shop]:
    async with shop(database_url, redis_url) as opened:
        yield opened


async def test_a_second_click_gives_the_same_session(store: Shop) -> None:
    buyer = await store.buyer()
    first = await buyer.subscribe()
    assert await buyer.subscribe() == first
    assert len(store.stripe.account.customers) == len(store.stripe.account.sessions) == 1


async def test_twenty_clicks_at_once_make_one_customer_and_one_session(store: Shop) -> None:
    buyer = await store.buyer()
    started = await asyncio.gather(*(buyer.subscribe() for _ in range(20)))
    assert len({each["session_id"] for each in started}) == 1
    assert len(store.stripe.account.customers) == len(store.stripe.account.sessions) == 1
    assert await store.value("SELECT count(*) FROM billing_customers") == 1


async def test_the_customer_is_stored_before_the_session_is_made(store: Shop) -> None:
    buyer = await store.buyer()
    store.stripe.rule(lambda call: Behaviour(status=500) if call.path == "/v1/checkout/sessions" else None)
    assert (await buyer.post("/v1/subscribe/pro")).status == 503
    assert await store.value("SELECT id FROM billing_customers") in store.stripe.account.customers
    store.stripe.rule(lambda _: Behaviour())
    await buyer.subscribe()
    assert len(store.stripe.account.customers) == 1


async def test_an_expired_session_is_followed_by_another(store: Shop) -> None:
    buyer = await store.buyer()
    first = await buyer.subscribe()
    store.stripe.account.expire_session(first["session_id"])
    second = await buyer.subscribe()
    assert second["session_id"] != first["session_id"]
    assert await buyer.subscribe() == second


async def test_whoever_may_be_charged_already_is_sent_to_the_portal(store: Shop) -> None:
    buyer = await store.buyer()
    subscription = store.stripe.account.subscribe(await store.customer(buyer))
    for status in ("active", "trialing", "past_due", "unpaid", "paused"):
        store.stripe.account.change(subscription["id"], status=status)
        answer = await buyer.post("/v1/subscribe/pro")
        assert (answer.status, answer.code) == (409, "already_subscribed"), status
        assert "/v1/subscription/portal" in answer.body["detail"]
    for status in ("canceled", "incomplete_expired", "incomplete"):
        store.stripe.account.change(subscription["id"], status=status)
        await buyer.subscribe()


async def test_a_subscription_to_something_else_does_not_stand_in_the_way(store: Shop) -> None:
    buyer = await store.buyer()
    store.stripe.account.subscribe(await store.customer(buyer), price="price_other")
    await buyer.subscribe()
    await store.settled()
    assert await buyer.tier() == "Basic"
    assert (await buyer.status())["status"] is None


async def test_the_portal_is_for_customers(store: Shop) -> None:
    stranger = await store.buyer()
    answer = await stranger.post("/v1/subscription/portal")
    assert (answer.status, answer.code) == (409, "not_subscribed")
    buyer, _ = await store.pro()
    answer = await buyer.post("/v1/subscription/portal")
    assert answer.status == 200 and answer.body["url"].startswith(f"{store.stripe.url}/p/session/bps_")
    (session,) = store.stripe.account.portals.values()
    assert session["return_url"] == f"{PUBLIC}/checkout/success"


async def test_cancelling_twice_is_cancelling_once(store: Shop) -> None:
    buyer, subscription = await store.pro()
    first = await buyer.post("/v1/subscription/cancel")
    assert (first.status, first.body["cancel_at_period_end"], first.body["status"]) == (200, True, "active")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first.body["current_period_end"])
    assert (await buyer.post("/v1/subscription/cancel")).body == first.body == await buyer.status()
    assert sum(call.method == "POST" and subscription["id"] in call.path for call in store.stripe.calls) == 1


async def test_there_is_nothing_to_cancel_for_whoever_has_not_subscribed(store: Shop) -> None:
    buyer = await store.buyer()
    assert (await buyer.post("/v1/subscription/cancel")).code == "not_subscribed"
    await buyer.subscribe()
    answer = await buyer.post("/v1/subscription/cancel")
    assert (answer.status, answer.code) == (409, "not_subscribed")


async def test_resuming_in_the_portal_is_seen(store: Shop) -> None:
    buyer, subscription = await store.pro()
    await buyer.post("/v1/subscription/cancel")
    store.stripe.account.update_subscription(subscription["id"], {"cancel_at_period_end": "false"})

    async def seen() -> bool:
        return (await buyer.status())["cancel_at_period_end"] is False

    await until(seen, "resumed")


async def test_coming_back_makes_pro_although_no_event_arrives(store: Shop) -> None:
    store.stripe.deliveries.automatic = False
    buyer = await store.buyer()
    started = await buyer.subscribe()
    path = f"/checkout/success?session_id={started['session_id']}"
    store.stripe.account.pay(started["session_id"])
    page = await store.client.call("GET", path)
    assert page.status == 200 and b"You are Pro now" in page.body
    assert await buyer.tier() == "Pro"


async def test_coming_back_without_having_paid_makes_nobody_pro(store: Shop) -> None:
    buyer = await store.buyer()
    started = await buyer.subscribe()
    page = await store.client.call("GET", f"/checkout/success?session_id={started['session_id']}")
    assert page.status == 200 and b"as soon as Stripe has confirmed" in page.body
    assert await buyer.tier() == "Basic"


async def test_reloading_the_success_page_does_not_ask_stripe_again(store: Shop) -> None:
    started = await (await store.buyer()).subscribe()
    await store.settled()
    before = len(store.stripe.calls)
    for _ in range(5):
        await store.client.call("GET", f"/checkout/success?session_id={started['session_id']}")
    assert len(store.stripe.calls) == before + 1


async def test_the_pages_show_nothing_of_what_they_are_asked_with(store: Shop) -> None:
    hostile = (
        "",
        "?session_id=",
        "?session_id=cs_test_nobody",
        "?session_id=<script>alert(1)</script>",
        "?session_id=cs_%00",
        "?session_id=cs_%ff",
        "?session_id=cs_a&session_id=cs_b",
        "?session_id=" + "cs_" + "a" * 5000,
        "?other=%zz",
    )
    for path in ("/checkout/success", "/checkout/cancel"):
        for query in hostile:
            async with store.client.http.get(path + query) as answer:
                page = await answer.text()
                assert answer.status == 200 and answer.content_type == "text/html"
                assert "<script" not in page and "cs_" not in page
                assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert not store.stripe.calls[1:]  # but for what is reconciled at the start


async def test_a_customer_deleted_at_stripe_is_replaced(store: Shop) -> None:
    buyer, _ = await store.pro()
    first = await store.value("SELECT id FROM billing_customers WHERE user_id = $1", buyer.id)
    store.stripe.account.delete_customer(first)
    await buyer.becomes("Basic", 2)
    started = await buyer.subscribe()
    second = await store.value("SELECT id FROM billing_customers WHERE user_id = $1", buyer.id)
    assert second != first
    store.stripe.account.pay(started["session_id"])
    await buyer.becomes("Pro", 2)


async def test_a_customer_of_another_stripe_account_is_replaced_by_subscribing(store: Shop) -> None:
    buyer, _ = await store.pro()
    store.stripe.account.customers.clear()
    assert await buyer.tier() == "Pro"
    assert (await buyer.post("/v1/subscription/portal")).code == "not_subscribed"
    assert await buyer.tier() == "Basic"
    await buyer.subscribe()
    assert (await buyer.post("/v1/subscription/portal")).status == 200


async def test_what_stripe_refuses_is_503_and_says_when_to_try_again(store: Shop) -> None:
    buyer = await store.buyer()
    await store.customer(buyer)
    for status in (400, 401, 429, 500):
        for path in ("/v1/subscribe/pro", "/v1/subscription/portal", "/v1/subscription/cancel"):
            store.stripe.rule(lambda _, status=status: Behaviour(status=status))
            answer = await buyer.post(path)
            assert (answer.status, answer.code) == (503, "payments_unavailable"), (status, path)
            assert int(answer.headers["Retry-After"]) >= 1


async def test_a_stripe_that_hangs_is_503_within_the_time_that_all_calls_have_together(
    store: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert subscriptions.PATIENCE_SECONDS < 12 and stripe_client.CALL_SECONDS <= 10
    monkeypatch.setattr(subscriptions, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(stripe_client, "CALL_SECONDS", 60.0)

    def slow(call: Call) -> Behaviour:
        return Behaviour(latency=0.3 if call.path == "/v1/customers" else 60.0)

    buyer = await store.buyer()
    store.stripe.rule(slow)
    async with asyncio.timeout(20):
        answer = await buyer.post("/v1/subscribe/pro")
    assert (answer.status, answer.code) == (503, "payments_unavailable")


async def test_without_a_key_everything_says_that_no_payments_are_taken(database_url: str, redis_url: str) -> None:
    service = accounts.Service(accounts.settings(database_url, redis_url))
    async with service.running(billing.routes(service, None)) as client:
        token = await client.join()
        for method, path in (
            ("POST", "/v1/subscribe/pro"),
            ("POST", "/v1/subscription/portal"),
            ("POST", "/v1/subscription/cancel"),
            ("POST", "/v1/webhook/stripe"),
        ):
            answer = await client.call(method, path, token=token)
            assert (answer.status, answer.code) == (503, "payments_unavailable")
            assert "STRIPE_SECRET_KEY" in answer.body["detail"]
        assert (await client.call("GET", "/checkout/success?session_id=cs_a")).status == 200
        status = await client.call("GET", "/v1/subscription/status", token=token)
        assert (status.status, status.body) == (
            200,
            {
                "subscription_tier": "Basic",
                "status": None,
                "current_period_end": None,
                "cancel_at_period_end": False,
            },
        )


async def test_a_subscription_is_still_shown_when_the_key_is_taken_away(
    store: Shop, database_url: str, redis_url: str
) -> None:
    buyer, _ = await store.pro()
    shown = await buyer.status()
    assert (shown["subscription_tier"], shown["status"]) == ("Pro", "active")
    keyless = accounts.Service(accounts.settings(database_url, redis_url, PRO_PRICE_ID=store.stripe.account.price_id))
    async with keyless.running(billing.routes(keyless, None)) as client:
        answer = await client.call("GET", "/v1/subscription/status", token=buyer.token)
        assert (answer.status, answer.body) == (200, shown)


async def test_a_user_calls_stripe_through_us_no_oftener_than_the_limit_and_others_are_not_held_up(
    store: Shop,
) -> None:
    buyer, other = await store.buyer(), await store.buyer()
    paths = ("/v1/subscribe/pro", "/v1/subscription/portal", "/v1/subscription/cancel")
    answers = [await buyer.post(paths[turn % 3]) for turn in range(REQUESTS.requests)]
    assert [answer.status for answer in answers[:3]] == [200, 200, 409]
    assert {answer.status for answer in answers} == {200, 409}
    calls = len(store.stripe.calls)
    for path in paths:
        refused = await buyer.post(path)
        assert (refused.status, refused.code) == (429, "rate_limited")
        assert 1 <= int(refused.headers["Retry-After"]) <= REQUESTS.seconds
    assert len(store.stripe.calls) == calls, "Stripe is not asked"
    assert (await buyer.status())["subscription_tier"] == "Basic", "looking costs nothing"
    assert (await other.post("/v1/subscribe/pro")).status == 200


async def test_nobody_subscribes_without_a_session(store: Shop) -> None:
    for path in ("/v1/subscribe/pro", "/v1/subscription/portal", "/v1/subscription/cancel"):
        assert (await store.client.call("POST", path)).code == "unauthorized"
    assert (await store.client.call("GET", "/v1/subscription/status")).code == "unauthorized"
