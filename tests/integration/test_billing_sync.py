"""Syncs one by one: overtaken, broken off, failing for a while and for good; Pro that ends by itself."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gembackend import dead_letters
from gembackend.billing import rules, sync_store
from gembackend.embedded.stripe import Behaviour, Call
from gembackend.embedded.stripe_wire import Object
from gembackend.plumbing import metrics
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.ids import new_id
from tests.billing import Buyer, Shop, settings, shop, shop_at, stand_in
from tests.processes import until


@pytest.fixture
async def store(database_url: str, redis_url: str) -> AsyncIterator[Shop]:
    async with shop(database_url, redis_url) as opened:
        yield opened


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again at once."""
    monkeypatch.setattr(rules, "retry_seconds", lambda _: 0.0)


def listing(customer: str | None = None) -> Any:
    """Whether a call asks for subscriptions, of this customer or of any."""

    def found(call: Call) -> bool:
        return call.path == "/v1/subscriptions" and customer in (None, call.params["customer"])

    return found


async def event_of(store: Shop, status: str) -> list[Object]:
    """The stored events with a status."""
    async with store.database.connection() as connection:
        rows = await connection.fetch("SELECT * FROM billing_events WHERE status = $1 ORDER BY id", status)
    return [dict(row) for row in rows]


async def accepted(store: Shop, buyer: Buyer) -> str:
    """What becomes of a prompt of somebody whose Basic quota is nothing."""
    room = new_id()
    await store.value("INSERT INTO chatrooms_metadata (id, user_id, name) VALUES ($1, $2, 'room')", room, buyer.id)
    return str(
        await store.value(
            "SELECT outcome FROM accept_prompts($1, $2, $3, $4, $5, $6, 0, 20)",
            [new_id()],
            [buyer.id],
            [room],
            ["Hello"],
            [None],
            ["test"],
        )
    )


@pytest.mark.pooled
async def test_an_answer_that_was_overtaken_changes_nothing(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_store, "LEASE_SECONDS", 0.05)
    withheld = asyncio.Event()
    treated = [Behaviour(withheld=withheld)]

    def first_is_slow(call: Call) -> Behaviour | None:
        return treated.pop() if listing()(call) and treated else None

    async with stand_in() as stripe:
        chosen = settings(database_url, redis_url, stripe)
        async with shop_at(chosen, stripe) as one, shop_at(chosen, stripe) as two:
            customer = await one.bare_customer()
            stripe.rule(first_is_slow)
            subscription = stripe.account.subscribe(customer)
            await stripe.wait_until(lambda: any(listing()(call) for call in stripe.done))
            stripe.account.cancel(subscription["id"])

            async def written() -> bool:
                return await two.value("SELECT status FROM billing_subscriptions") == "canceled"

            await until(written, "the newer state")
            withheld.set()
            await one.idle()
            await two.idle()
            assert await written()
            assert await two.value("SELECT subscription_tier FROM users") == "Basic"


async def test_whoever_waits_overtakes_the_background(store: Shop) -> None:
    store.stripe.deliveries.automatic = False
    buyer = await store.buyer()
    started = await buyer.subscribe()
    withheld = asyncio.Event()
    treated = [Behaviour(withheld=withheld)]
    store.stripe.rule(lambda call: treated.pop() if listing()(call) and treated else None)
    before = len(store.stripe.done)
    customer = await store.value("SELECT id FROM billing_customers")
    early = store.stripe.account.subscribe(customer, status="incomplete")
    await store.take(list(store.stripe.account.events.values())[-1])
    await store.stripe.wait_until(lambda: len(store.stripe.done) > before)
    store.stripe.account.pay(started["session_id"])
    page = await store.client.call("GET", f"/checkout/success?session_id={started['session_id']}")
    assert b"You are Pro now" in page.body
    withheld.set()
    await store.idle()
    assert await buyer.tier() == "Pro"
    assert [event["id"] for event in await event_of(store, "processed")]
    assert await store.value("SELECT status FROM billing_subscriptions WHERE id = $1", early["id"]) == "incomplete"


@pytest.mark.pooled
async def test_what_is_broken_off_is_given_back_at_once(database_url: str, redis_url: str) -> None:
    async with stand_in() as stripe:
        chosen = settings(database_url, redis_url, stripe)
        stripe.rule(lambda call: Behaviour(hold=asyncio.Event()) if listing()(call) else None)
        async with shop_at(chosen, stripe) as first:
            customer = await first.bare_customer()
            stripe.account.subscribe(customer)
            await stripe.wait_until(lambda: any(map(listing(customer), stripe.calls)))
        stripe.rule(lambda _: Behaviour())
        async with shop_at(chosen, stripe) as second:

            async def written() -> bool:
                return await second.value("SELECT count(*) FROM billing_subscriptions") == 1

            await until(written, "the sync of the next process", sync_store.LEASE_SECONDS / 3)


@pytest.mark.pooled
async def test_a_tier_change_reaches_every_process_within_a_second(database_url: str, redis_url: str) -> None:
    async with stand_in() as stripe:
        chosen = settings(database_url, redis_url, stripe)
        async with shop_at(chosen, stripe) as one, shop_at(chosen, stripe) as two:
            buyer, subscription = await one.pro()
            elsewhere = Buyer(two.client, buyer.token, buyer.id)
            assert (await elsewhere.tier(), await accepted(two, buyer)) == ("Pro", "accepted")
            stripe.account.cancel(subscription["id"])
            await elsewhere.becomes("Basic", 1)
            assert await accepted(two, buyer) == "daily_limit_reached"


async def test_a_stale_subscription_beside_a_live_one_hides_nothing(store: Shop) -> None:
    buyer = await store.buyer()
    customer = await store.customer(buyer)
    stale = store.stripe.account.subscribe(customer, status="incomplete")
    store.stripe.account.subscribe(customer)
    await buyer.becomes("Pro")
    store.stripe.account.change(stale["id"], status="incomplete_expired")
    for _ in range(12):  # so many that they fill more than one page of Stripe's default size
        store.stripe.account.subscribe(customer, status="incomplete_expired")

    async def all_known() -> bool:
        return await store.value("SELECT count(*) FROM billing_subscriptions") == 14

    await until(all_known, "every subscription")
    assert await buyer.tier() == "Pro"
    assert (await buyer.status())["status"] == "active"


@pytest.mark.pooled
async def test_a_cancelled_pro_ends_with_the_period_although_no_event_comes(store: Shop) -> None:
    buyer, subscription = await store.pro()
    store.stripe.account.end_period(subscription["id"], time.time() + 2)
    assert (await buyer.post("/v1/subscription/cancel")).body["subscription_tier"] == "Pro"
    await store.settled()
    store.stripe.deliveries.automatic = False
    assert (await buyer.tier(), await accepted(store, buyer)) == ("Pro", "accepted")
    ends = await store.value("SELECT extract(epoch FROM pro_until)::float8 FROM users")
    assert ends == subscription["cancel_at"]
    await buyer.becomes("Basic", ends - time.time() + 10)
    assert await accepted(store, buyer) == "daily_limit_reached"
    assert (await buyer.status())["subscription_tier"] == "Basic"


async def test_grace_begins_when_the_payment_fails_and_not_again(store: Shop) -> None:
    buyer, subscription = await store.pro()
    store.stripe.account.fail_payment(subscription["id"])

    async def noticed() -> bool:
        return (await buyer.status())["status"] == "past_due"

    await until(noticed, "past due")
    await store.settled()
    assert await buyer.tier() == "Pro"
    grace = "SELECT extract(epoch FROM u.pro_until - s.past_due_since) / 86400 FROM users u, billing_subscriptions s"
    assert await store.value(grace) == 7
    since = await store.value("UPDATE billing_subscriptions SET past_due_since = now() - interval '8 days' RETURNING 1")
    assert since == 1
    subscription["items"]["data"][0]["current_period_end"] += 60
    store.stripe.account.fail_payment(subscription["id"])
    await buyer.becomes("Basic")
    store.stripe.account.change(subscription["id"], status="active")
    await buyer.becomes("Pro")
    assert await store.value("SELECT past_due_since FROM billing_subscriptions") is None


async def test_without_grace_a_failed_payment_ends_pro(database_url: str, redis_url: str) -> None:
    async with shop(database_url, redis_url, PAST_DUE_GRACE_DAYS="0") as store:
        buyer, subscription = await store.pro()
        store.stripe.account.fail_payment(subscription["id"])
        await buyer.becomes("Basic")


async def test_an_earlier_price_of_ours_still_makes_pro(database_url: str, redis_url: str) -> None:
    async with stand_in() as stripe:
        prices = f"{stripe.account.price_id}, price_other_earlier"
        async with shop_at(settings(database_url, redis_url, stripe, PRO_PRICE_ID=prices), stripe) as store:
            buyer = await store.buyer()
            stripe.account.subscribe(await store.customer(buyer), price="price_other_earlier")
            await buyer.becomes("Pro")


@pytest.mark.usefixtures("impatient")
@pytest.mark.pooled
async def test_poison_is_parked_after_five_attempts_and_holds_up_nobody(
    store: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    buyer = await store.buyer()
    customer = await store.customer(buyer)
    store.stripe.rule(lambda call: Behaviour(status=400) if listing(customer)(call) else None)
    store.stripe.account.subscribe(customer)

    async def parked() -> bool:
        return bool(await event_of(store, "parked"))

    await until(parked, "parked")
    (event,) = await event_of(store, "parked")
    assert (event["attempts"], event["error_code"]) == (rules.MOST_ATTEMPTS, "invalid_request")
    await store.settled()
    await store.pro()  # somebody else

    chosen = settings_of(store)
    assert await dead_letters.show(chosen, 10, as_json=False, say=print) == 0
    told = capsys.readouterr().out
    assert event["id"] in told and "invalid_request" in told and f"customer.subscription.created {customer}" in told
    store.stripe.rule(lambda _: Behaviour())
    assert await dead_letters.replay(chosen, [event["id"], "evt_nobody"], as_json=False, say=print) == 1
    told = capsys.readouterr().out
    assert "1 Stripe events pending again." in told and "evt_nobody is not a dead letter." in told
    await buyer.becomes("Pro")
    assert await dead_letters.show(chosen, 10, as_json=True, say=print) == 0
    assert event["id"] not in capsys.readouterr().out


def settings_of(store: Shop) -> Any:
    """Settings that name the database of a shop."""
    return settings(store.database_url, "redis://127.0.0.1:1", store.stripe)


@pytest.mark.usefixtures("impatient")
async def test_a_bug_of_ours_is_poison_too(store: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    customer = await store.bare_customer()

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(rules, "entitlement", broken)
    store.stripe.account.subscribe(customer)

    async def parked() -> bool:
        return [event["error_code"] for event in await event_of(store, "parked")] == ["internal"]

    await until(parked, "parked")
    assert all(actor.health() is None for actor in store.billing.actors)


@pytest.mark.usefixtures("impatient")
async def test_an_outage_parks_nothing(store: Shop) -> None:
    customer = await store.bare_customer()
    store.stripe.rule(lambda call: Behaviour(status=401) if listing()(call) else None)
    store.stripe.account.subscribe(customer)
    await store.stripe.wait_until(lambda: sum(map(listing(customer), store.stripe.calls)) > 2 * rules.MOST_ATTEMPTS)
    store.stripe.rule(lambda _: Behaviour())
    await store.settled()
    assert [event["attempts"] for event in await event_of(store, "processed")] == [0]


IDLE = {
    "void": {"pause_collection": {"behavior": "void", "resumes_at": None}},
    "keep_as_draft": {"pause_collection": {"behavior": "keep_as_draft", "resumes_at": None}},
    "mark_uncollectible": {"pause_collection": {"behavior": "mark_uncollectible", "resumes_at": 4102444800}},
    "quantity 0": {"quantity": 0},
}


@pytest.mark.parametrize("idle", IDLE.values(), ids=IDLE)
async def test_what_is_not_paid_for_is_not_pro_and_is_again_when_it_is(store: Shop, idle: dict[str, Any]) -> None:
    buyer, subscription = await store.pro()
    item = subscription["items"]["data"][0]
    item["quantity"] = idle.get("quantity", 1)
    store.stripe.account.change(subscription["id"], pause_collection=idle.get("pause_collection"))
    await buyer.becomes("Basic")
    assert (await buyer.status())["status"] == "active"
    assert (await buyer.post("/v1/subscribe/pro")).code == "already_subscribed"
    item["quantity"] = 1
    store.stripe.account.change(subscription["id"], pause_collection=None)
    await buyer.becomes("Pro")


async def test_rows_of_before_do_not_look_changed(store: Shop) -> None:
    """A process of schema version 5 writes nothing of idle prices, and nothing has been written in rows of then."""
    buyer, subscription = await store.pro()
    await store.settled()
    await store.value("UPDATE billing_subscriptions SET idle_price_ids = DEFAULT")
    unchanged = metrics.BILLING_SYNCS.labels("unchanged")._value.get()
    found = await store.billing.subscriptions._syncs.now(buyer.id, subscription["customer"])
    assert [each.id for each in found] == [subscription["id"]]
    assert metrics.BILLING_SYNCS.labels("unchanged")._value.get() == unchanged + 1


async def test_every_subscription_is_cancelled_although_one_cannot_be(store: Shop) -> None:
    buyer, first = await store.pro()
    second = store.stripe.account.subscribe(first["customer"])
    await store.settled()
    posted: list[str] = []

    def first_fails(call: Call) -> Behaviour | None:
        if call.method != "POST" or "/subscriptions/" not in call.path:
            return None
        posted.append(call.path)
        return Behaviour(status=400) if call.path == posted[0] else None

    store.stripe.rule(first_fails)
    assert (await buyer.post("/v1/subscription/cancel")).status == 503
    assert sorted(each["cancel_at"] is not None for each in (first, second)) == [False, True]
    store.stripe.rule(lambda _: Behaviour())
    assert (await buyer.post("/v1/subscription/cancel")).body["cancel_at_period_end"] is True
    assert first["cancel_at"] is not None and second["cancel_at"] is not None


@pytest.mark.usefixtures("impatient")
async def test_a_deleted_users_subscription_ends_although_its_checkout_cannot_be_closed(store: Shop) -> None:
    buyer, subscription = await store.pro()
    expiring = [Behaviour(status=403)] * 3
    store.stripe.rule(lambda call: expiring.pop() if expiring and call.path.endswith("/expire") else None)
    answer = await store.client.call("DELETE", "/v1/user/me", {"password": "correct horse battery"}, token=buyer.token)
    assert answer.status == 204
    await store.stripe.wait_until(lambda: any(call.method == "DELETE" for call in store.stripe.done))
    assert subscription["status"] == "canceled"
    await store.settled()
    assert expiring == [] and await store.value("SELECT count(*) FROM billing_customers") == 0


async def test_how_long_events_wait_is_measured_although_nothing_can_be_claimed(
    store: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unclaimable(*_: object) -> list[Any]:
        raise Fault("database_unavailable", "")

    monkeypatch.setattr(sync_store, "claim_due", unclaimable)
    store.stripe.account.subscribe(await store.bare_customer())

    async def measured() -> bool:
        return bool(metrics.BILLING_OLDEST_SECONDS._value.get() > 0)

    await until(measured, "an age")
    monkeypatch.undo()
    await store.settled()


@pytest.mark.pooled
async def test_customers_are_synced_side_by_side(store: Shop) -> None:
    customers = [await store.bare_customer() for _ in range(4)]
    held = asyncio.Event()
    store.stripe.rule(lambda call: Behaviour(hold=held) if listing(customers[0])(call) else None)
    for customer in customers:
        store.stripe.account.subscribe(customer)

    async def three_done() -> bool:
        return await store.value("SELECT count(*) FROM billing_subscriptions") == 3

    await until(three_done, "the other three")
    held.set()
    await store.settled()
    assert await store.value("SELECT count(*) FROM billing_subscriptions") == 4


async def test_with_its_user_the_subscription_goes(store: Shop) -> None:
    buyer, subscription = await store.pro()
    answer = await store.client.call("DELETE", "/v1/user/me", {"password": "correct horse battery"}, token=buyer.token)
    assert answer.status == 204

    async def ended() -> bool:
        return subscription["status"] == "canceled"

    await until(ended, "the subscription cancelled at Stripe")
    await store.settled()
    assert await store.value("SELECT count(*) FROM billing_customers") == 0
    assert await store.value("SELECT count(*) FROM billing_subscriptions") == 0


@pytest.mark.usefixtures("impatient")
async def test_a_deleted_user_is_not_forgotten_while_stripe_is_away_or_refuses(store: Shop) -> None:
    buyer, subscription = await store.pro()
    other = await store.buyer()
    open_session = await other.subscribe()
    deletions = 0

    def failing(call: Call) -> Behaviour | None:
        nonlocal deletions
        deletions += call.method == "DELETE"
        return Behaviour(status=400 if deletions % 2 else 429) if call.method == "DELETE" else None

    store.stripe.rule(failing)
    for leaving in (buyer, other):
        answer = await store.client.call(
            "DELETE", "/v1/user/me", {"password": "correct horse battery"}, token=leaving.token
        )
        assert answer.status == 204
    await store.stripe.wait_until(lambda: deletions > 2 * rules.MOST_ATTEMPTS)
    store.stripe.rule(lambda _: Behaviour())
    await store.settled()
    assert subscription["status"] == "canceled"
    assert store.stripe.account.session(open_session["session_id"])["status"] == "expired"
    assert all(customer["deleted"] for customer in store.stripe.account.customers.values())


def without_lists_of_deleted_customers(store: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Stripe have no such customer when subscriptions of a deleted one are asked for; the stand-in lists them."""
    account = store.stripe.account
    lists = account.list_subscriptions

    def list_of_the_living(params: Object) -> Object:
        account._living(params["customer"], param="customer")
        return lists(params)

    monkeypatch.setattr(account, "list_subscriptions", list_of_the_living)


async def test_what_comes_while_a_customer_turns_out_to_be_deleted_is_done_with_it(
    store: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_lists_of_deleted_customers(store, monkeypatch)
    store.stripe.deliveries.automatic = False
    customer = await store.bare_customer()
    store.stripe.account.subscribe(customer)
    store.stripe.account.delete_customer(customer)
    first, *_, last = store.stripe.account.events.values()
    held = asyncio.Event()

    def looking(call: Call) -> bool:
        return (call.method, call.path) == ("GET", f"/v1/customers/{customer}")

    store.stripe.rule(lambda call: Behaviour(hold=held) if looking(call) else None)
    await store.take(first)
    await store.stripe.wait_until(lambda: any(map(looking, store.stripe.calls)))
    await store.take(last)
    held.set()
    await store.settled()
    assert len(await event_of(store, "processed")) == 2
    assert await store.value("SELECT gone_at IS NOT NULL FROM billing_customers")
    assert len([call for call in store.stripe.calls if looking(call)]) == 1, "asked again for nothing"


async def test_a_customer_that_this_stripe_account_never_had_is_not_taken_for_a_deleted_one(store: Shop) -> None:
    buyer, subscription = await store.pro()
    await store.settled()
    store.stripe.deliveries.automatic = False
    store.stripe.account.change(subscription["id"], cancel_at_period_end=True)
    store.stripe.account.customers.clear()
    await store.take([*store.stripe.account.events.values()][-1])

    async def failed() -> bool:
        return bool(await store.value("SELECT failures > 0 FROM billing_customers"))

    await until(failed, "a sync that failed")
    assert await store.value("SELECT gone_at IS NULL AND sync_at > now() FROM billing_customers"), "tried again later"
    assert await buyer.tier() == "Pro", "a wrong key takes nobody's subscription away"
    assert len(await event_of(store, "pending")) == 1


async def test_nothing_is_asked_of_stripe_for_a_user_who_leaves_after_the_customer(
    store: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_lists_of_deleted_customers(store, monkeypatch)
    buyer, _ = await store.pro()
    store.stripe.account.delete_customer(await store.value("SELECT id FROM billing_customers"))
    await buyer.becomes("Basic")
    await store.settled()
    calls = len(store.stripe.calls)
    answer = await store.client.call("DELETE", "/v1/user/me", {"password": "correct horse battery"}, token=buyer.token)
    assert answer.status == 204

    async def forgotten() -> bool:
        return await store.value("SELECT count(*) FROM billing_customers") == 0

    await until(forgotten, "the customer forgotten")
    assert store.stripe.calls[calls:] == []
