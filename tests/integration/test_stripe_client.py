"""The client against the stand-in, over real HTTP: what it asks for, what it makes of answers and of failures."""

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Iterator
from typing import get_args
from uuid import UUID

import pytest
import structlog

from gembackend.billing import stripe as module
from gembackend.billing.faults import CustomerMissing, StripeFault
from gembackend.billing.prices import in_words, wrong
from gembackend.billing.stripe import API_VERSION, Permission, Stripe
from gembackend.embedded.stripe import Behaviour, StripeStandIn
from gembackend.plumbing import logs
from tests.billing import stand_in

USER = UUID("01890000-0000-7000-8000-000000000001")


@pytest.fixture
async def server() -> AsyncIterator[StripeStandIn]:
    async with stand_in() as standing:
        yield standing


@pytest.fixture
async def client(server: StripeStandIn) -> AsyncIterator[Stripe]:
    stripe = Stripe(server.secret_key, server.account.price_id, api_base=server.url + "/")
    yield stripe
    await stripe.close()


async def failing(client: Stripe) -> StripeFault:
    with pytest.raises(StripeFault) as raised:
        await client.subscriptions("cus_any")
    assert raised.value.code.name == "payments_unavailable"
    return raised.value


async def test_the_same_customer_is_made_once_and_another_after_it(server: StripeStandIn, client: Stripe) -> None:
    first = await client.create_customer(USER, after=None)
    assert await client.create_customer(USER, after=None) == first
    assert await client.create_customer(USER, after=first) != first
    assert server.account.customers[first]["metadata"] == {"user_id": str(USER)}
    assert {call.api_version for call in server.calls} == {API_VERSION}


async def test_a_call_whose_answer_was_lost_is_repeated_under_its_key(server: StripeStandIn, client: Stripe) -> None:
    behaviours = [Behaviour(cut=True), Behaviour()]
    server.rule(lambda _: behaviours.pop(0))
    made = await client.create_customer(USER, after=None)
    assert list(server.account.customers) == [made]
    assert len({call.idempotency_key for call in server.calls}) == 1 < len(server.calls)


async def test_a_checkout_is_opened_once_and_seen_to_be_paid(server: StripeStandIn, client: Stripe) -> None:
    customer = await client.create_customer(USER, after=None)

    async def opened(after: str | None = None) -> module.CheckoutSession:
        return await client.create_checkout(
            customer,
            USER,
            success_url="http://a.example/s?id={CHECKOUT_SESSION_ID}",
            cancel_url="http://a.example/c",
            after=after,
        )

    session, same = await asyncio.gather(opened(), opened())
    assert session == same and session.open and session.url
    assert await client.checkout(session.id) == session
    server.account.pay(session.id)
    paid = await client.checkout(session.id)
    assert paid is not None and not paid.open
    assert (await opened(after=session.id)).id != session.id
    assert await client.checkout("cs_test_nobody") is None
    await client.expire_checkout(session.id)  # not open: stays as it is


async def test_every_page_of_subscriptions_is_read(server: StripeStandIn, client: Stripe) -> None:
    customer = await client.create_customer(USER, after=None)
    made = [server.account.subscribe(customer, status="canceled")["id"] for _ in range(230)]
    assert sorted(each.id for each in await client.subscriptions(customer)) == sorted(made)
    assert sum(call.path == "/v1/subscriptions" for call in server.calls) == 3


async def test_a_subscription_is_read_as_it_is(server: StripeStandIn, client: Stripe) -> None:
    customer = await client.create_customer(USER, after=None)
    subscription = server.account.subscribe(customer)
    found = (await client.subscriptions(customer))[0]
    end = subscription["items"]["data"][0]["current_period_end"]
    assert (found.id, found.status, found.price_ids) == (subscription["id"], "active", (server.account.price_id,))
    assert found.current_period_end is not None and found.current_period_end.timestamp() == end
    assert found.cancel_at is None
    await client.cancel_at_period_end(subscription["id"])
    assert (await client.subscriptions(customer))[0].cancel_at == found.current_period_end
    server.account.change(subscription["id"], cancel_at_period_end=False, cancel_at=end - 5)
    cancel_at = (await client.subscriptions(customer))[0].cancel_at
    assert cancel_at is not None and cancel_at.timestamp() == end - 5


async def test_a_customer_that_is_deleted_is_told_from_one_of_another_account(
    server: StripeStandIn, client: Stripe
) -> None:
    customer = await client.create_customer(USER, after=None)
    server.account.subscribe(customer)
    await client.delete_customer(customer)
    await client.delete_customer(customer)
    await client.delete_customer("cus_never_seen")
    assert [each["status"] for each in server.account.subscriptions.values()] == ["canceled"]
    with pytest.raises(CustomerMissing) as unknown:
        await client.subscriptions("cus_never_seen")
    assert unknown.value.deleted is False
    with pytest.raises(CustomerMissing):
        await client.open_portal(customer, "http://a.example/")


async def test_undelivered_events_are_listed_page_by_page(server: StripeStandIn, client: Stripe) -> None:
    customer = await client.create_customer(USER, after=None)
    for _ in range(120):
        server.account.subscribe(customer)
    session = server.account.create_session(
        {"customer": customer, "line_items": [{"price": server.account.price_id}], "success_url": "", "cancel_url": ""}
    )
    server.account.expire_session(session["id"])  # an event that does not matter
    taken = next(iter(server.account.events))
    server.account.delivered(taken)
    first = await client.undelivered_events()
    second = await client.undelivered_events(after=first.after)
    assert (len(first.events), first.after, second.after) == (100, first.events[-1].id, None)
    assert {event.id for event in (*first.events, *second.events)} == set(list(server.account.events)[1:-1])


async def test_the_next_page_begins_after_the_last_event_that_says_who_it_is(
    server: StripeStandIn, client: Stripe
) -> None:
    customer = await client.create_customer(USER, after=None)
    events = [server.account.subscribe(customer) for _ in range(3)] and list(server.account.events.values())[::-1]
    events[1]["id"] = None
    page = await client.undelivered_events(limit=2)
    assert ([event.id for event in page.events], page.odd, page.after) == ([events[0]["id"]], 1, events[0]["id"])


async def test_a_permission_is_tried_without_a_trace(server: StripeStandIn, client: Stripe) -> None:
    before = len(server.account.customers), len(server.account.portals)
    for permission in get_args(Permission):
        await client.try_permission(permission)
    assert (len(server.account.customers), len(server.account.portals)) == before == (0, 0)
    assert client.forbidden == {}
    server.rule(lambda call: Behaviour(status=403) if call.method == "POST" else None)
    for permission in get_args(Permission):
        with pytest.raises(StripeFault) as raised:
            await client.try_permission(permission)
        assert raised.value.reason == "permission_missing"


async def test_a_refusal_is_remembered_until_it_is_lifted_or_old(server: StripeStandIn, client: Stripe) -> None:
    for status in (403, 401):
        server.rule(lambda _, status=status: Behaviour(status=status))
        await failing(client)
        assert list(client.forbidden) == ["list_subscriptions"]
        client.forget_refusals(60)
        assert client.forbidden
        client.forget_refusals(-1)
        assert not client.forbidden
    await failing(client)
    server.rule(lambda _: Behaviour())
    await client.subscriptions(await client.create_customer(USER, after=None))
    assert not client.forbidden


async def test_the_price_is_read(server: StripeStandIn, client: Stripe) -> None:
    price = await client.price()
    assert (price.id, in_words(price), wrong(price)) == (server.account.price_id, "9.99 USD a month", None)


@pytest.mark.parametrize(
    ("status", "reason", "lasting"),
    [
        (400, "invalid_request", True),
        (401, "key_refused", False),
        (403, "permission_missing", False),
        (429, "rate_limited", False),
        (500, "server_error", False),
        (503, "server_error", False),
    ],
)
async def test_a_refusal_lasts_and_an_outage_does_not(
    server: StripeStandIn, client: Stripe, status: int, reason: str, lasting: bool
) -> None:
    server.rule(lambda _: Behaviour(status=status))
    fault = await failing(client)
    assert (fault.reason, fault.lasting) == (reason, lasting)


async def test_a_stripe_that_is_not_there_is_an_outage(server: StripeStandIn, client: Stripe) -> None:
    await server.stop()
    fault = await failing(client)
    assert (fault.reason, fault.lasting) == ("unreachable", False)


async def test_a_stripe_that_does_not_answer_is_given_up_in_time(
    server: StripeStandIn, client: Stripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CALL_SECONDS", 0.2)
    server.rule(lambda _: Behaviour(hold=asyncio.Event()))
    assert (await failing(client)).reason == "timeout"


async def test_an_answer_that_makes_no_sense_lasts(server: StripeStandIn, client: Stripe) -> None:
    customer = await client.create_customer(USER, after=None)
    server.account.subscribe(customer, status="unpaid", items=None)
    with pytest.raises(StripeFault) as raised:
        await client.subscriptions(customer)
    assert (raised.value.reason, raised.value.lasting) == ("unexpected_answer", True)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[io.StringIO]:
    """Everything that is logged, down to what the SDK has for debugging."""
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    logs.configure("debug", "json", stream)
    caplog.set_level(logging.DEBUG, "stripe")
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


async def test_the_key_is_in_no_log_line_whatever_happens(server: StripeStandIn, logged: io.StringIO) -> None:
    client = Stripe("sk_live_canary_0123456789", server.account.price_id, api_base=server.url)
    assert (await failing(client)).reason == "key_refused"
    server.rule(lambda _: Behaviour(status=500))
    await failing(client)
    await server.stop()
    await failing(client)
    await client.close()
    assert "stripe_failed" in logged.getvalue() and "Request to Stripe api" in logged.getvalue()
    assert "canary" not in logged.getvalue()
