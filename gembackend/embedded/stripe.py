"""A stand-in for Stripe that speaks its real HTTP API, for `gembackend dev` and tests.

It sells one price. Its Checkout page has a Pay button, its portal page lets a person cancel, resume, and let the
billing period end at once; whatever happens is told to the webhook as signed events.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from urllib.parse import parse_qsl

from aiohttp import web

from gembackend.embedded import stripe_pages as pages
from gembackend.embedded.stripe_account import Account
from gembackend.embedded.stripe_deliveries import Deliveries
from gembackend.embedded.stripe_keys import Keys
from gembackend.embedded.stripe_state import shown
from gembackend.embedded.stripe_wire import ApiError, Behaviour, Call, Object, injected, new_id, parse_form

__all__ = ["Behaviour", "Call", "StripeStandIn"]

PRICE_ID = "price_standin_pro"
SECRET_KEY = "sk_test_standin"  # noqa: S105
CALLS_KEPT = 10_000

Rule = Callable[[Call], Behaviour | None]


class StripeStandIn:
    """The server. `account` is what tests look at and change, `deliveries` how its events reach `webhook_url`.

    `calls` are those that have arrived, `done` those that have been carried out, be they answered or not. A call meets
    the behaviour of the newest rule that says something. `keys` are the idempotency keys. With a `path` the account is
    kept there.
    """

    secret_key = SECRET_KEY

    def __init__(self, *, webhook_url: str | None = None, path: Path | None = None) -> None:
        self.deliveries = Deliveries(webhook_url, self._taken)
        self.account = Account(PRICE_ID, self.deliveries.add, path)
        self.calls: list[Call] = []
        self.done: list[Call] = []
        self.url = ""
        self._rules: list[Rule] = []
        self.keys = Keys()
        self._arrived = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> str:
        """Listen on 127.0.0.1 and return the API's base URL; post what was not delivered earlier."""
        app = web.Application(middlewares=[_explained])
        app.router.add_route("*", "/v1/{path:.*}", self._api)
        for path, handler in (("/c/pay/{id}", self._checkout), ("/p/session/{id}", self._portal)):
            app.router.add_get(path, handler)
            app.router.add_post(path, handler)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{site.port}"
        self.deliveries.start(self.account.webhook_secret)
        for event in self.account.events.values():
            if event["pending_webhooks"]:
                self.deliveries.add(event)
        return self.url

    async def stop(self) -> None:
        """Stop listening and posting; harmless when it is not running."""
        await self.deliveries.stop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def rule(self, choose: Rule) -> None:
        """Ask `choose` first how to treat a call; None leaves it to the earlier rules."""
        self._rules.insert(0, choose)

    async def wait_until(self, happened: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait until something is true that calls bring about; TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout), self._arrived:
            await self._arrived.wait_for(happened)

    def _taken(self, event_id: str) -> None:
        self.account.delivered(event_id)

    async def _api(self, request: web.Request) -> web.StreamResponse:
        """One call of the API."""
        sent = request.query_string if request.method in ("GET", "DELETE") else await request.text()
        call = Call(
            method=request.method,
            path=request.path,
            params=parse_form(parse_qsl(sent, keep_blank_values=True)),
            idempotency_key=request.headers.get("Idempotency-Key"),
            api_version=request.headers.get("Stripe-Version"),
        )
        await self._note(self.calls, call)
        behaviour = next((chosen for choose in self._rules if (chosen := choose(call)) is not None), Behaviour())
        try:
            if request.headers.get("Authorization") != f"Bearer {SECRET_KEY}":
                raise injected(401, call)
            # Rate limits, permissions and what stands before Stripe's servers come before idempotency keys.
            refused = behaviour.status is not None and not behaviour.keeps
            with nullcontext() if refused else self.keys.in_use(call):
                await asyncio.sleep(behaviour.latency)
                if behaviour.hold is not None:
                    await behaviour.hold.wait()
                if behaviour.status is not None and refused:
                    raise injected(behaviour.status, call)
                status, body = self._once(call, behaviour)
        except ApiError as error:
            status, body = error.status, error.body
        await self._note(self.done, call)
        await asyncio.sleep(behaviour.delay)
        if behaviour.withheld is not None:
            await behaviour.withheld.wait()
        if behaviour.cut and request.transport is not None:
            request.transport.abort()
        return web.json_response(body, status=status, headers={"Request-Id": new_id("req")})

    async def _note(self, calls: list[Call], call: Call) -> None:
        async with self._arrived:
            calls.append(call)
            del calls[:-CALLS_KEPT]
            self._arrived.notify_all()

    def _once(self, call: Call, behaviour: Behaviour) -> tuple[int, Object]:
        """Carry a call out, or let it fail as told, or repeat the answer to its idempotency key."""
        earlier = self.keys.answer(call)
        if earlier is not None:
            return earlier
        status, body = 200, self._carry_out(call) if behaviour.status is None or behaviour.effect else {}
        if behaviour.status is not None:
            status, body = behaviour.status, injected(behaviour.status, call).body
        self.keys.keep(call, status, body)
        return status, body

    def _carry_out(self, call: Call) -> Object:
        account, params = self.account, call.params
        account.settle()
        try:
            match (call.method, *call.path.split("/")[2:]):
                case ("POST", "customers"):
                    made = account.create_customer(params)
                case ("GET", "customers"):
                    made = account.list_customers(params)
                case ("POST", "customers", object_id):
                    made = account.update_customer(object_id, params)
                case ("GET", "customers", object_id):
                    made = account.customer(object_id)
                case ("DELETE", "customers", object_id):
                    made = account.delete_customer(object_id)
                case ("POST", "checkout", "sessions"):
                    made = account.create_session(params)
                case ("GET", "checkout", "sessions"):
                    made = account.list_sessions(params)
                case ("GET", "checkout", "sessions", object_id):
                    made = account.session(object_id)
                case ("POST", "checkout", "sessions", object_id, "expire"):
                    made = account.expire_session(object_id)
                case ("POST", "billing_portal", "sessions"):
                    made = account.create_portal(params)
                case ("GET", "billing_portal", "configurations"):
                    made = account.list_portal_settings(params)
                case ("GET", "subscriptions"):
                    made = account.list_subscriptions(params)
                case ("GET", "subscriptions", object_id):
                    made = account.subscription(object_id)
                case ("POST", "subscriptions", object_id):
                    made = account.update_subscription(object_id, params)
                case ("DELETE", "subscriptions", object_id):
                    made = account.cancel(object_id)
                case ("GET", "events"):
                    made = account.list_events(params)
                case ("GET", "prices", object_id):
                    made = account.price(object_id)
                case _:
                    raise ApiError(f"Unrecognized request URL ({call.method}: {call.path}).", status=404)
        except KeyError as error:
            name = str(error.args[0])
            raise ApiError(f"Missing required param: {name}.", code="parameter_missing", param=name) from None
        account.save()
        return self._shown(made)

    def _shown(self, made: Object) -> Object:
        """An object or a list of them as the API shows it at this moment."""
        if made["object"] == "list":
            return made | {"data": [self._shown(each) for each in made["data"]]}
        return shown(made) | self._link(made)

    def _link(self, made: Object) -> Object:
        """Where the page of a session is, while it has one."""
        match made["object"]:
            case "checkout.session":
                return {"url": f"{self.url}/c/pay/{made['id']}" if made["status"] == "open" else None}
            case "billing_portal.session":
                return {"url": f"{self.url}/p/session/{made['id']}"}
            case _:
                return {}

    async def _checkout(self, request: web.Request) -> web.StreamResponse:
        """The page of a Checkout session, and its Pay button."""
        self.account.settle()
        session = self.account.session(request.match_info["id"])
        if request.method == "POST" and session["status"] == "open":
            self.account.pay(session["id"])
            self.account.save()
            raise web.HTTPSeeOther(session["success_url"].replace("{CHECKOUT_SESSION_ID}", session["id"]))
        return web.Response(text=pages.checkout(session, self.account.price(PRICE_ID)), content_type="text/html")

    async def _portal(self, request: web.Request) -> web.StreamResponse:
        """The page of a portal session, and its buttons."""
        self.account.settle()
        session = self.account.portal(request.match_info["id"])
        if request.method == "POST":
            form = await request.post()
            self._press(str(form.get("do")), str(form.get("subscription")))
            self.account.save()
            raise web.HTTPSeeOther(request.path)
        theirs = self.account.list_subscriptions({"customer": session["customer"], "status": "all"})["data"]
        return web.Response(text=pages.portal(session, theirs), content_type="text/html")

    def _press(self, button: str, subscription_id: str) -> None:
        match button:
            case "cancel":
                self.account.update_subscription(subscription_id, {"cancel_at_period_end": "true"})
            case "resume":
                self.account.update_subscription(subscription_id, {"cancel_at_period_end": "false"})
            case "end-period":
                self.account.end_period(subscription_id)
            case "fail-payment":
                self.account.fail_payment(subscription_id)


@web.middleware
async def _explained(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Tell a person in words what an API client is told in JSON."""
    try:
        return await handler(request)
    except ApiError as error:
        return web.Response(text=str(error), status=error.status)
