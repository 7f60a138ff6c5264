"""Customers and Checkout sessions are made once, whatever Stripe answers, and no failure of its shuts anybody out."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from gembackend.embedded.stripe import Behaviour, Call
from gembackend.embedded.stripe_wire import Object
from tests.billing import Shop, shop

PATHS = {"customer": "/v1/customers", "checkout": "/v1/checkout/sessions"}


@pytest.fixture
async def store(database_url: str, redis_url: str) -> AsyncIterator[Shop]:
    async with shop(database_url, redis_url) as opened:
        yield opened


@pytest.fixture(params=list(PATHS))
def path(request: pytest.FixtureRequest) -> str:
    """Where one of the two is made."""
    return PATHS[request.param]


def making(path: str) -> Callable[[Call], bool]:
    """Whether a call makes something there."""
    return lambda call: (call.method, call.path) == ("POST", path)


def failing(store: Shop, path: str, *behaviours: Behaviour) -> None:
    """Let the first calls that make something there, under whatever key, meet these; later ones are carried out.

    What meets a kept failure once meets it again under the same key, as that is what Stripe does.
    """
    waiting = list(behaviours)
    store.stripe.rule(lambda call: waiting.pop(0) if waiting and making(path)(call) else None)


def living(store: Shop) -> list[Object]:
    """The customers that are not deleted."""
    return [each for each in store.stripe.account.customers.values() if not each.get("deleted")]


def open_sessions(store: Shop) -> list[Object]:
    """The Checkout sessions in which somebody could pay."""
    return [each for each in store.stripe.account.sessions.values() if each["status"] == "open"]


def keys(store: Shop, path: str) -> list[str | None]:
    """The idempotency keys under which something was made there, in order, each once."""
    return list(dict.fromkeys(call.idempotency_key for call in store.stripe.calls if making(path)(call)))


async def one_of_each(store: Shop, started: Object) -> None:
    """There is one customer and one open session, which is the one that somebody was sent to."""
    (customer,) = living(store)
    (session,) = open_sessions(store)
    assert started["session_id"] == session["id"] and session["customer"] == customer["id"]
    assert await store.value("SELECT id FROM billing_customers") == customer["id"]
    assert await store.value("SELECT count(*) FROM billing_creations") == 0


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(status=500),
        Behaviour(status=500, effect=True),
        Behaviour(status=400, kept=True),
        Behaviour(status=502, kept=False),
        Behaviour(status=429),
        Behaviour(status=403),
    ],
    ids=["kept", "kept, with its effect", "refused and kept", "not kept", "limited", "forbidden"],
)
async def test_a_failure_shuts_nobody_out_of_paying(store: Shop, path: str, behaviour: Behaviour) -> None:
    buyer = await store.buyer()
    failing(store, path, behaviour, *([behaviour] if behaviour.status == 502 else []))
    answer = await buyer.post("/v1/subscribe/pro")
    assert (answer.status, answer.code) == (503, "payments_unavailable")
    await one_of_each(store, await buyer.subscribe())
    assert len(store.stripe.account.customers) == 1
    assert len(keys(store, path)) == (1 if behaviour.status == 429 or behaviour.effect else 2)


async def test_one_failure_after_another_is_followed_by_a_key_of_its_own(store: Shop, path: str) -> None:
    buyer = await store.buyer()
    failures = [Behaviour(status=500), Behaviour(status=500, kept=False), Behaviour(status=500, effect=True)]
    used: dict[str | None, Behaviour] = {}

    def treat(call: Call) -> Behaviour | None:
        if not making(path)(call) or (call.idempotency_key not in used and not failures):
            return None
        return used.setdefault(call.idempotency_key, failures[0] if call.idempotency_key in used else failures.pop(0))

    store.stripe.rule(treat)
    for _ in range(3):
        assert (await buyer.post("/v1/subscribe/pro")).status == 503
    await one_of_each(store, await buyer.subscribe())
    assert len(store.stripe.account.customers) == 1 and len(keys(store, path)) == 3


async def test_after_a_lost_answer_the_key_is_good_for_the_same_thing(store: Shop, path: str) -> None:
    buyer = await store.buyer()
    failing(store, path, Behaviour(cut=True), Behaviour(cut=True))
    assert (await buyer.post("/v1/subscribe/pro")).status == 503
    await one_of_each(store, await buyer.subscribe())
    assert len(keys(store, path)) == 1 == len(store.stripe.account.customers)


async def test_when_stripe_has_forgotten_the_key_it_is_looked_at_first(store: Shop, path: str) -> None:
    buyer = await store.buyer()
    failing(store, path, Behaviour(cut=True), Behaviour(cut=True))
    assert (await buyer.post("/v1/subscribe/pro")).status == 503
    store.stripe.keys.forget()
    await store.value(
        "UPDATE billing_creations SET begun_at = now() - interval '25 hours', asked_at = now() - interval '25 hours'"
    )
    for customer in living(store):
        customer["created"] -= 25 * 3600
    await one_of_each(store, await buyer.subscribe())
    assert len(store.stripe.account.customers) == 1


async def test_somebody_elses_customer_of_the_same_moment_is_not_taken(store: Shop) -> None:
    other, buyer = await store.buyer(), await store.buyer()
    await other.subscribe()
    failing(store, PATHS["customer"], Behaviour(status=500))
    assert (await buyer.post("/v1/subscribe/pro")).status == 503
    await buyer.subscribe()
    assert len(living(store)) == len(open_sessions(store)) == 2
    assert await store.value("SELECT count(DISTINCT id) FROM billing_customers") == 2


async def test_of_several_open_sessions_only_one_stays(store: Shop) -> None:
    buyer = await store.buyer()
    first = await buyer.subscribe()
    store.stripe.account.expire_session(first["session_id"])
    template = store.stripe.account.session(first["session_id"])
    fields = {name: value for name, value in template.items() if name not in ("id", "object", "created", "livemode")}
    for changed in ({}, {"success_url": "http://elsewhere.example/"}, {}, {"client_reference_id": "a stranger's"}):
        store.stripe.account.add("sessions", "cs_test", "checkout.session", **fields | {"status": "open"} | changed)
    failing(store, PATHS["checkout"], Behaviour(status=500))
    assert (await buyer.post("/v1/subscribe/pro")).status == 503
    started = await buyer.subscribe()
    ours = [each for each in open_sessions(store) if each["client_reference_id"] == str(buyer.id)]
    assert [each["id"] for each in ours] == [started["session_id"]]
    assert len(open_sessions(store)) == 2, "a session that is not ours is left alone"


async def test_a_click_during_another_waits_for_the_same_answer(store: Shop, path: str) -> None:
    buyer = await store.buyer()
    held = asyncio.Event()
    store.stripe.rule(lambda call: Behaviour(hold=held) if making(path)(call) else None)
    clicks = [asyncio.create_task(buyer.subscribe()) for _ in range(2)]
    await store.stripe.wait_until(lambda: sum(map(making(path), store.stripe.calls)) >= 3)
    held.set()
    started, same = await asyncio.gather(*clicks)
    assert started == same
    await one_of_each(store, started)


async def test_a_call_that_was_given_up_and_still_has_its_effect_leaves_nothing_behind(store: Shop, path: str) -> None:
    """Something before Stripe's servers fails for one click, while the call of another is still on its way."""
    buyer = await store.buyer()
    held = asyncio.Event()
    failing(store, path, Behaviour(hold=held), *[Behaviour(status=502, kept=False)] * 2)
    slow = asyncio.create_task(buyer.subscribe())
    await store.stripe.wait_until(lambda: any(map(making(path), store.stripe.calls)))
    assert (await buyer.post("/v1/subscribe/pro")).status == 503
    started = await buyer.subscribe()
    held.set()
    assert await slow == started
    await one_of_each(store, started)


async def test_what_is_made_for_a_user_who_is_deleted_meanwhile_is_removed(store: Shop) -> None:
    buyer = await store.buyer()
    held = asyncio.Event()
    failing(store, PATHS["customer"], Behaviour(hold=held))
    slow = asyncio.create_task(buyer.post("/v1/subscribe/pro"))
    await store.stripe.wait_until(lambda: any(map(making(PATHS["customer"]), store.stripe.calls)))
    gone = await store.client.call("DELETE", "/v1/user/me", {"password": "correct horse battery"}, token=buyer.token)
    assert gone.status == 204
    held.set()
    assert (await slow).status == 401
    assert living(store) == []


async def test_a_customer_that_is_gone_is_followed_by_one_of_its_own_although_the_first_try_fails(store: Shop) -> None:
    buyer, _ = await store.pro()
    store.stripe.account.delete_customer(living(store)[0]["id"])
    await buyer.becomes("Basic")
    failing(store, PATHS["customer"], Behaviour(status=500, effect=True))
    assert (await buyer.post("/v1/subscribe/pro")).status == 503
    started = await buyer.subscribe()
    await one_of_each(store, started)
    store.stripe.account.pay(started["session_id"])
    await buyer.becomes("Pro")
