"""The webhook against whoever posts to it, and with PostgreSQL or Stripe away."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from gembackend.billing import rules
from gembackend.embedded.stripe import Behaviour
from gembackend.embedded.stripe_wire import Object, signature
from gembackend.plumbing import metrics
from tests.billing import Shop, settings, shop, shop_at, stand_in
from tests.processes import until

EVENT = {"id": "evt_1", "type": "invoice.paid", "created": 1_700_000_000, "data": {"object": {"customer": "cus_1"}}}


@pytest.fixture
async def store(database_url: str, redis_url: str) -> AsyncIterator[Shop]:
    async with shop(database_url, redis_url) as opened:
        yield opened


def event(**changes: Any) -> Object:
    return EVENT | changes


@pytest.mark.pooled
async def test_an_event_is_stored_once_however_often_it_comes(store: Shop) -> None:
    answers = await asyncio.gather(*(store.post_event(event()) for _ in range(20)))
    assert {(answer.status, answer.body["received"]) for answer in answers} == {(200, True)}
    assert await store.value("SELECT count(*) FROM billing_events") == 1


async def test_each_of_two_secrets_verifies_and_no_other(database_url: str, redis_url: str) -> None:
    async with stand_in() as stripe:
        chosen = settings(database_url, redis_url, stripe, STRIPE_WEBHOOK_SIGNING_SECRET="whsec_old, whsec_new")
        async with shop_at(chosen, stripe) as store:
            raw = json.dumps(EVENT).encode()
            for secret, status in (("whsec_old", 200), ("whsec_new", 200), (stripe.account.webhook_secret, 400)):
                assert (await store.post_event(raw, signature(raw, secret, time.time()))).status == status


async def test_the_signature_table(store: Shop) -> None:
    raw, secret, now = json.dumps(EVENT).encode(), store.stripe.account.webhook_secret, int(time.time())
    good = signature(raw, secret, now)
    refused = [
        "",
        "garbage",
        "t=,v1=",
        good.replace("v1", "v0"),
        good[:-1] + ("0" if good[-1] != "0" else "1"),
        signature(raw, "whsec_other", now),
        signature(raw + b" ", secret, now),
        signature(raw, secret, now - 310),
        signature(raw, secret, now + 310),
        f"t={now},v1=é",
        good + ",v1=é,t=5",
        "t=" + "9" * 4000,
        "t=1٢,v1=00",
    ]
    for header in refused:
        answer = await store.post_event(raw, header)
        assert (answer.status, answer.code) == (400, "invalid_signature"), header
    async with store.client.http.post("/v1/webhook/stripe", data=raw) as unsigned:
        assert (unsigned.status, (await unsigned.json())["code"]) == (400, "invalid_signature")
    for header in (good, signature(raw, secret, now - 295), signature(raw, secret, now + 295), good + ",v1=é"):
        assert (await store.post_event(raw, header)).status == 200, header
    assert await store.value("SELECT count(*) FROM billing_events") == 1


async def test_two_signature_headers_are_none(store: Shop) -> None:
    raw = json.dumps(EVENT).encode()
    good = signature(raw, store.stripe.account.webhook_secret, time.time())
    headers = [("Stripe-Signature", good), ("Stripe-Signature", good)]
    async with store.client.http.post("/v1/webhook/stripe", data=raw, headers=headers) as answer:
        assert answer.status == 400


async def test_what_is_signed_but_is_no_event_is_400(store: Shop) -> None:
    bodies = [
        b"",
        b"[]",
        b"null",
        b"{}",
        b"true",
        b'"evt_1"',
        b"\xff\xfe",
        b'{"id": "\xff"}',
        b"{" * 100_000,
        b"[" * 200_000,
        b'{"id": NaN}',
        json.dumps(event(id=None)).encode(),
        json.dumps(event(id="")).encode(),
        json.dumps(event(id="evt_\0")).encode(),
        json.dumps(event(id="evt_1\n")).encode(),
        json.dumps(event(id="e" * 256)).encode(),
        json.dumps(event(id=5)).encode(),
        json.dumps(event(type="invoice paid")).encode(),
        json.dumps(event(type="\ud800")).encode(),
        json.dumps(event(created=2**63)).encode(),
        json.dumps(event(created=-1)).encode(),
        json.dumps(event(created=True)).encode(),
        json.dumps(event(created="yesterday")).encode(),
        json.dumps(event(data=[])).encode(),
        json.dumps(event(data={"object": None})).encode(),
        json.dumps(event(data={"object": {"object": 5}})).encode(),
    ]
    for body in bodies:
        answer = await store.post_event(body)
        assert (answer.status, answer.code) == (400, "malformed_request"), body[:40]
    assert await store.value("SELECT count(*) FROM billing_events") == 0


THIN = {
    "id": "evt_test_65R9Ijk8dKEYZcXeRWn16R9A7j1FSQ3w3TGDPLLGSM4CW0",
    "object": "v2.core.event",
    "type": "v1.customer.subscription.updated",
    "livemode": False,
    "created": "2026-05-01T06:20:52.246Z",
    "related_object": {"id": "sub_1", "type": "subscription", "url": "/v1/subscriptions/sub_1"},
}
"""https://docs.stripe.com/api/v2/core/events/event-types"""


async def test_a_thin_event_is_told_from_a_forged_one(store: Shop) -> None:
    raw, secret = json.dumps(THIN).encode(), store.stripe.account.webhook_secret
    thin = metrics.BILLING_EVENTS.labels("thin")._value.get()
    with capture_logs() as logged:
        answer = await store.post_event(raw)
        forged = await store.post_event(raw, signature(raw, "whsec_other", time.time()))
        late = await store.post_event(raw, signature(raw, secret, time.time() - 3600))
    assert (answer.status, answer.code) == (400, "thin_event")
    assert "snapshot" in answer.body["detail"]
    assert [(each.status, each.code) for each in (forged, late)] == [(400, "invalid_signature")] * 2
    refused = [(line["log_level"], line["reason"]) for line in logged if line["event"] == "stripe_event_refused"]
    assert refused == [("warning", "thin"), ("info", "signature"), ("info", "signature")]
    assert metrics.BILLING_EVENTS.labels("thin")._value.get() == thin + 1
    assert await store.value("SELECT count(*) FROM billing_events") == 0


async def test_every_thin_event_is_one_whatever_else_it_has(store: Shop) -> None:
    for changes in ({"type": "v2.core.event_destination.ping"}, {"data": {"object": {}}}, {"type": None}, {"id": 5}):
        answer = await store.post_event(THIN | changes)
        assert (answer.status, answer.code) == (400, "thin_event"), changes


async def test_what_concerns_nobody_here_is_stored_and_ignored(store: Shop) -> None:
    bodies = [
        event(),
        event(id="evt_2", type="a.type.of.the.future"),
        event(id="evt_3", data={"object": {"customer": "cus_\0"}}),
        event(id="evt_4", data={"object": {"customer": {"id": ["cus_1"]}}}),
        event(id="evt_5", data={"object": {}}),
        event(id="evt_6", livemode=True, extra={"deep": [[[]]]}),
    ]
    for body in bodies:
        assert (await store.post_event(body)).status == 200, body
    assert await store.value("SELECT count(*) FROM billing_events WHERE status = 'ignored'") == len(bodies)


async def test_size_and_coding_have_their_bounds(store: Shop) -> None:
    room = 256 * 1024 - len(json.dumps(event(padding="")))
    assert (await store.post_event(event(padding="x" * room))).status == 200
    answer = await store.post_event(event(padding="x" * (room + 1)))
    assert (answer.status, answer.code) == (413, "payload_too_large")
    headers = {"Content-Encoding": "gzip"}
    async with store.client.http.post("/v1/webhook/stripe", data=b"x", headers=headers) as compressed:
        assert compressed.status == 415


async def test_stripe_is_not_called_while_it_waits_for_the_answer(database_url: str, redis_url: str) -> None:
    async with stand_in() as stripe, shop_at(settings(database_url, redis_url, stripe), stripe, actors=False) as store:
        buyer = await store.buyer()
        session = stripe.account.pay((await buyer.subscribe())["session_id"])
        before = len(stripe.calls)
        for told in list(stripe.account.events.values()):
            assert (await store.post_event(told)).status == 200
        assert len(stripe.calls) == before
        assert await store.value("SELECT count(*) FROM billing_events WHERE status = 'pending'") == 3
        assert session["status"] == "complete" and await buyer.tier() == "Basic"


async def test_with_stripe_away_events_are_taken_and_have_their_effect_later(
    store: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "retry_seconds", lambda _: 0.1)
    store.stripe.deliveries.automatic = False
    buyer = await store.buyer()
    started = await buyer.subscribe()
    store.stripe.rule(lambda _: Behaviour(status=503))
    store.stripe.account.pay(started["session_id"])
    for told in list(store.stripe.account.events.values()):
        assert await store.stripe.deliveries.deliver(told) == 200
    failed = metrics.BILLING_SYNCS.labels("failed")._value.get()

    async def tried() -> bool:
        return bool(metrics.BILLING_SYNCS.labels("failed")._value.get() > failed)

    await until(tried, "a sync that fails")
    assert (await buyer.post("/v1/subscribe/pro")).status == 503
    assert await buyer.tier() == "Basic"
    store.stripe.rule(lambda _: Behaviour())
    await buyer.becomes("Pro")
    assert await store.value("SELECT sum(attempts) FROM billing_events") == 0


async def test_nobody_is_lifted_by_the_metadata_of_another(store: Shop) -> None:
    thief, victim = await store.buyer(), await store.buyer()
    customer = await store.customer(thief)
    await store.customer(victim)
    store.stripe.account.subscribe(customer, price="price_other_cheap", metadata={"user_id": str(victim.id)})
    store.stripe.account.subscribe(customer, metadata={"user_id": str(victim.id)})
    await thief.becomes("Pro")
    forged = event(
        type="checkout.session.completed",
        data={"object": {"customer": "cus_of_nobody", "client_reference_id": str(victim.id)}},
    )
    assert (await store.post_event(forged)).status == 200
    await store.settled()
    assert (await victim.tier(), (await victim.status())["status"]) == ("Basic", None)
