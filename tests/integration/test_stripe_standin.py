"""The stand-in itself: what stripe-python makes of it, its pages, its webhooks, and that it outlives a restart."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import stripe
from aiohttp import web

from gembackend.embedded.stripe import Behaviour, StripeStandIn
from gembackend.embedded.stripe_wire import Object, parse_form
from tests.billing import stand_in
from tests.processes import until


class Listener:
    """Takes webhooks as a service would, or answers with the next of `statuses`."""

    def __init__(self, secret: Callable[[], str]) -> None:
        self.taken: list[str] = []
        self.statuses: list[int] = []
        self._secret = secret

    async def handle(self, request: web.Request) -> web.Response:
        status = self.statuses.pop(0) if self.statuses else 200
        raw = await request.read()
        event = stripe.Webhook.construct_event(raw, request.headers["Stripe-Signature"], self._secret(), api_key="sk")
        if status == 200:
            self.taken.append(event.id)
        return web.Response(status=status)


@asynccontextmanager
async def listening(standing: StripeStandIn) -> AsyncIterator[Listener]:
    """A listener that the stand-in posts to."""
    listener = Listener(lambda: standing.account.webhook_secret)
    app = web.Application()
    app.router.add_post("/hook", listener.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    standing.deliveries.url = f"http://127.0.0.1:{site.port}/hook"
    yield listener
    await runner.cleanup()


@pytest.fixture
async def server() -> AsyncIterator[StripeStandIn]:
    async with stand_in() as standing:
        yield standing


def session_of(standing: StripeStandIn, customer: Object) -> Object:
    """A Checkout session."""
    params = {"customer": customer["id"], "line_items": [{"price": standing.account.price_id}]}
    urls = {"success_url": "http://a.example/thanks?id={CHECKOUT_SESSION_ID}", "cancel_url": "http://a.example/<back>"}
    return standing.account.create_session(params | urls)


async def call(standing: StripeStandIn, method: str, path: str, **options: Any) -> tuple[int, Any]:
    """A bare call with the right key."""
    headers = {"Authorization": f"Bearer {standing.secret_key}"} | options.pop("headers", {})
    async with aiohttp.request(method, standing.url + path, headers=headers, **options) as response:
        return response.status, await response.json()


def test_forms_are_nested_as_stripe_nests_them() -> None:
    pairs = [("a", "1"), ("b[c]", "2"), ("d[0][e]", "3"), ("d[1][e]", "4"), ("f[]", "5"), ("g[h][0]", "6")]
    expected = {"a": "1", "b": {"c": "2"}, "d": [{"e": "3"}, {"e": "4"}], "f": ["5"], "g": {"h": ["6"]}}
    assert parse_form(pairs) == expected


async def test_errors_look_like_stripes(server: StripeStandIn) -> None:
    status, body = await call(server, "GET", "/v1/subscriptions/sub_1")
    error = {"type": "invalid_request_error", "code": "resource_missing", "param": "id"}
    assert (status, body["error"]) == (404, error | {"message": "No such subscription: 'sub_1'"})
    assert (await call(server, "GET", "/v1/nothing"))[0] == 404
    assert (await call(server, "GET", "/v1/subscriptions"))[1]["error"]["param"] == "customer"
    assert (await call(server, "GET", "/v1/events", headers={"Authorization": "Bearer sk_other"}))[0] == 401


async def test_an_idempotency_key_is_for_one_request(server: StripeStandIn) -> None:
    async def create(name: str) -> tuple[int, Any]:
        headers = {"Idempotency-Key": "key"}
        return await call(server, "POST", "/v1/customers", headers=headers, data={"metadata[name]": name})

    first = await create("one")
    assert await create("one") == first
    status, body = await create("another")
    assert (status, body["error"]["type"]) == (400, "idempotency_error")
    assert len(server.account.customers) == 1


async def test_what_fails_in_stripes_hands_is_kept_under_its_key_and_what_is_turned_away_is_not(
    server: StripeStandIn,
) -> None:
    async def create(key: str, *behaviours: Behaviour) -> int:
        server.rule(lambda _: waiting.pop(0) if waiting else Behaviour())
        waiting = list(behaviours)
        return (await call(server, "POST", "/v1/customers", headers={"Idempotency-Key": key}))[0]

    for status, again in ((500, 500), (503, 503), (400, 200), (403, 200), (409, 200), (429, 200)):
        key = f"key-{status}"
        assert [await create(key, Behaviour(status=status)), await create(key)] == [status, again]
    made = len(server.account.customers)
    assert await create("effect", Behaviour(status=500, effect=True)) == await create("effect") == 500
    assert len(server.account.customers) == made + 1
    assert [await create("refused", Behaviour(status=400, kept=True)), await create("refused")] == [400, 400]
    server.keys.forget()
    assert await create("key-500") == 200


async def test_a_key_is_in_use_until_its_call_is_answered(server: StripeStandIn) -> None:
    held = asyncio.Event()
    server.rule(lambda _: Behaviour(hold=held))
    headers = {"Idempotency-Key": "key"}
    first = asyncio.create_task(call(server, "POST", "/v1/customers", headers=headers))
    await server.wait_until(lambda: bool(server.calls))
    status, body = await call(server, "POST", "/v1/customers", headers=headers)
    assert (status, body["error"]["code"]) == (409, "idempotency_key_in_use")
    held.set()
    assert (await first)[0] == 200 and len(server.account.customers) == 1


async def test_lists_are_by_what_is_asked_for(server: StripeStandIn) -> None:
    customers = [server.account.create_customer({}) for _ in range(3)]
    customers[0]["created"] -= 1000
    since = customers[1]["created"]
    _, listed = await call(server, "GET", f"/v1/customers?created[gte]={since}&limit=1")
    assert ([each["id"] for each in listed["data"]], listed["has_more"]) == ([customers[2]["id"]], True)
    sessions = [session_of(server, customers[0]) for _ in range(2)]
    server.account.expire_session(sessions[0]["id"])
    _, listed = await call(server, "GET", f"/v1/checkout/sessions?customer={customers[0]['id']}&status=open")
    (found,) = listed["data"]
    assert found["url"] == f"{server.url}/c/pay/{sessions[1]['id']}" and not any(name[0] == "_" for name in found)


async def test_a_slow_answer_is_as_old_as_the_call(server: StripeStandIn) -> None:
    customer = server.account.create_customer({})
    withheld = asyncio.Event()
    server.rule(lambda _: Behaviour(withheld=withheld))
    asking = asyncio.create_task(call(server, "GET", f"/v1/subscriptions?customer={customer['id']}"))
    await server.wait_until(lambda: bool(server.done))
    server.account.subscribe(customer["id"])
    withheld.set()
    assert (await asking)[1]["data"] == []


async def test_events_are_signed_and_sent_until_they_are_taken(server: StripeStandIn) -> None:
    async with listening(server) as listener:
        listener.statuses = [500, 503]
        server.account.subscribe(server.account.create_customer({})["id"])
        (event,) = server.account.events.values()

        async def delivered() -> bool:
            return not event["pending_webhooks"]

        await until(delivered, "the event delivered")
        assert listener.taken == [event["id"]]


async def test_events_can_be_repeated_shuffled_and_lost(server: StripeStandIn) -> None:
    async with listening(server) as listener:
        server.deliveries.copies, server.deliveries.jitter = 3, 0.05
        server.deliveries.lost = lambda event: event["type"] == "invoice.paid"
        customer = server.account.create_customer({})
        for _ in range(20):
            server.account.pay(session_of(server, customer)["id"])

        async def all_there() -> bool:
            return len(listener.taken) == 120

        await until(all_there, "every copy")
        wanted = [each["id"] for each in server.account.events.values() if each["type"] != "invoice.paid"]
        assert sorted(listener.taken) == sorted(wanted * 3)
        assert listener.taken != sorted(listener.taken, key=wanted.index)


async def test_the_checkout_page_says_what_it_is_and_its_button_pays(server: StripeStandIn) -> None:
    customer = server.account.create_customer({})
    session = session_of(server, customer)
    url = f"{server.url}/c/pay/{session['id']}"
    async with aiohttp.ClientSession() as http:
        page = await (await http.get(url)).text()
        assert "stand-in" in page and "9.99 USD" in page and "http://a.example/&lt;back&gt;" in page
        answer = await http.post(url, data={"do": "pay"}, allow_redirects=False)
        assert (answer.status, answer.headers["Location"]) == (303, f"http://a.example/thanks?id={session['id']}")
        again = await http.post(url, data={"do": "pay"}, allow_redirects=False)
        assert again.status == 200 and "complete" in await again.text()
        assert (await http.get(f"{server.url}/c/pay/cs_test_nobody")).status == 404
    assert [each["status"] for each in server.account.subscriptions.values()] == ["active"]


async def test_the_portal_cancels_resumes_and_lets_time_pass(server: StripeStandIn) -> None:
    customer = server.account.create_customer({})
    subscription = server.account.subscribe(customer["id"])
    portal = server.account.create_portal({"customer": customer["id"], "return_url": "http://a.example/"})
    url = f"{server.url}/p/session/{portal['id']}"
    async with aiohttp.ClientSession() as http:

        async def press(button: str) -> str:
            page = await (await http.get(url)).text()
            assert f'<button id="{button}">' in page
            return await (await http.post(url, data={"do": button, "subscription": subscription["id"]})).text()

        await press("end-period")
        assert "invoice.paid" in [each["type"] for each in server.account.events.values()]
        await press("fail-payment")
        assert subscription["status"] == "past_due"
        subscription["status"] = "active"
        assert "ends on" in await press("cancel")
        assert "is renewed on" in await press("resume")
        await press("cancel")
        assert re.search("<h2>canceled</h2>", await press("end-period"))


async def test_what_is_not_delivered_and_who_has_paid_outlive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "stripe.json"
    async with stand_in(path=path, webhook_url="http://127.0.0.1:9/nobody") as first:
        status, customer = await call(first, "POST", "/v1/customers")
        assert status == 200
        session = session_of(first, customer)
        await call(first, "GET", f"/v1/checkout/sessions/{session['id']}")
        async with aiohttp.request("POST", f"{first.url}/c/pay/{session['id']}", allow_redirects=False):
            pass
    assert path.stat().st_mode & 0o777 == 0o600
    assert first.account.webhook_secret in json.dumps(json.loads(path.read_text()))
    second = StripeStandIn(path=path)
    async with listening(second) as listener:
        await second.start()

        async def caught_up() -> bool:
            return sorted(listener.taken) == sorted(first.account.events)

        await until(caught_up, "every event delivered")
        assert second.account.subscriptions == first.account.subscriptions
        await second.stop()
