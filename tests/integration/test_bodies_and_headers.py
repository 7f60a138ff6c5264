"""Bodies where none is taken, bodies as large as their texts need, and headers of every kind on every route."""

import gzip
import json
from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import pytest
from yarl import URL

from gembackend.web.routing import Route
from gembackend.web.server import ROUTES
from tests.accounts import PASSWORD, Answer, new_phone
from tests.whole import Whole, whole_service

NOWHERE = "01980f5d-ac96-774b-bcce-b302099a8057"
JSON = {"Content-Type": "application/json"}
SMILE = "\U0001f600"


@pytest.fixture
async def whole(database_url: str, redis_url: str) -> AsyncIterator[Whole]:
    async with whole_service(database_url, redis_url, BASIC_DAILY_PROMPTS="1000") as started:
        yield started


async def send(whole: Whole, method: str, path: str, raw: bytes | None, headers: dict[str, str]) -> Answer:
    """Send a request as it is, with a token."""
    given = {"Authorization": f"Bearer {whole.client.token}"} | headers
    skipped = ["Content-Type", "Accept", "Accept-Encoding", "User-Agent"]
    url = URL(whole.client.base + path, encoded=True)
    http = whole.client.http
    async with http.request(method, url, data=raw, headers=given, skip_auto_headers=skipped) as response:
        body = await response.read()
        parsed = json.loads(body) if response.content_type.endswith("json") and body else body
        return Answer(response.status, dict(response.headers), parsed)


def at(route: Route) -> str:
    """A path of a route, which leads to nothing where it names something."""
    return route.path.replace("{asset}", "start.js").replace("{chatroom_id}", NOWHERE).replace("{prompt_id}", NOWHERE)


REFUSED: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "too much": (b"x" * 70_000, JSON, 413, "payload_too_large"),
    "too much of no type": (b"x" * 70_000, {}, 413, "payload_too_large"),
    "text": (b"hello", {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
    "no type": (b"{}", {}, 415, "unsupported_media_type"),
    "a form": (b"a=1", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
    "packed": (gzip.compress(b"{}"), JSON | {"Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
    "no JSON": (b"{", JSON, 400, "malformed_json"),
    "a member": (b'{"subscription_tier": "Pro"}', JSON, 422, "validation_failed"),
    "a list": (b"[]", JSON, 422, "validation_failed"),
    "null": (b"null", JSON, 422, "validation_failed"),
}


async def test_a_body_where_none_is_taken_is_looked_at(whole: Whole) -> None:
    routes = [route for route in whole.service.app[ROUTES] if route.refuses_bodies]
    assert {(route.method, route.path) for route in routes} >= {
        ("POST", "/v1/subscribe/pro"),
        ("POST", "/v1/subscription/portal"),
        ("POST", "/v1/subscription/cancel"),
        ("POST", "/v1/auth/logout"),
        ("POST", "/v1/prompt/{prompt_id}/regenerate"),
        ("DELETE", "/v1/prompt/{prompt_id}"),
        ("DELETE", "/v1/chatroom/{chatroom_id}"),
        ("GET", "/v1/user/me"),
        ("GET", "/v1/search"),
        ("GET", "/v1/chatroom/{chatroom_id}/events"),
        ("GET", "/readyz"),
    }
    wrong = {}
    for route, (what, (raw, headers, status, code)) in product(routes, REFUSED.items()):
        answer = await send(whole, route.method, at(route), raw, headers)
        if (answer.status, answer.code) != (status, code):
            wrong[route.method, route.path, what] = answer.status, answer.body
    assert not wrong
    assert (await send(whole, "GET", "/v1/user/me", b"{}", JSON)).status == 200
    assert (await send(whole, "HEAD", "/v1/user/me", b"x" * 70_000, JSON)).status == 413
    member = await send(whole, "POST", "/v1/subscribe/pro", REFUSED["a member"][0], JSON)
    assert member.body["errors"] == [{"field": "subscription_tier", "message": "is not a known field"}]
    room = await whole.room()
    assert (await send(whole, "DELETE", f"/v1/chatroom/{room}", b'{"force": true}', JSON)).status == 422
    assert (await whole.client.call("GET", f"/v1/chatroom/{room}")).status == 200, "nothing was done"
    prompt = (await whole.ask(room, "hello"))["id"]
    for raw, headers in ((b"{}", JSON), (b" {} ", JSON), (None, {}), (b"", {"Content-Type": "text/plain"}), (b" ", {})):
        assert (await send(whole, "POST", f"/v1/prompt/{prompt}/regenerate", raw, headers)).status in (202, 409)
    stranger = await send(whole, "POST", "/v1/auth/logout", b"x" * 70_000, {"Authorization": "Bearer x"})
    assert stranger.code == "unauthorized", "who asks is looked at first"
    assert (await send(whole, "POST", "/v1/auth/logout", b"{}", JSON)).status == 204


ODD = {
    "Accept": [
        "application/openmetrics-text; version=x",
        "application/openmetrics-text; version=1.x.0",
        "application/openmetrics-text; version=",
        'application/openmetrics-text; version="1.0.0"; q=2',
        "application/openmetrics-text; version=99999999999999999999999.0",
        "text/plain; version=abc",
        "text/plain; version=1.0.0; escaping=odd",
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
        ";;;===,,,",
        "*/*;q=nan",
        "\u00e9/\u00fc",
        "text/html, " * 500,
    ],
    "Accept-Encoding": ["gzip;q=0", "gzip;q=x", "br, *", "zstd", ";", "identity;q=0, *;q=0"],
    "Accept-Language": ["\u00e9"],
    "Accept-Charset": ["utf-7, *;q=0"],
    "Content-Type": ["x", ";;", "multipart/form-data", "application/json; charset=bogus-8"],
    "Cookie": ["a=b; c", "=;=;", "\u00e9", "x" * 4000],
    "Content-Length": ["0"],
    "Range": ["bytes=0-1", "bytes=5-1", "x"],
    "If-None-Match": ["*", 'W/"', "x"],
    "If-Modified-Since": ["yesterday"],
    "Upgrade": ["h2c", "websocket"],
    "Origin": ["null", "\u00e9"],
    "Forwarded": ["for=;by"],
    "X-Forwarded-For": ["\u00e9", "," * 500],
    "X-Forwarded-Host": ["a b"],
    "X-Forwarded-Proto": ["x"],
    "X-HTTP-Method-Override": ["DELETE"],
    "Prefer": ["wait=x", "wait", ";;"],
    "Last-Event-ID": ["\u00e9"],
    "Idempotency-Key": ["\u00e9"],
    "X-Request-ID": ["\u00e9"],
    "traceparent": ["00-x"],
    "Stripe-Signature": ["t=x,v1="],
    "TE": ["trailers, deflate;q=0.5"],
    "Max-Forwards": ["-1"],
    "Date": ["x"],
    "From": ["\u00e9"],
}


async def test_no_header_on_any_route_is_a_failure_of_ours(whole: Whole) -> None:
    routes = [route for route in whole.service.app[ROUTES] if route.path != "/v1/auth/logout"]
    wrong = {}
    for route in routes:
        for name, values in ODD.items():
            for value in values:
                answer = await send(whole, route.method, at(route), None, {name: value})
                if answer.status >= 500 and answer.body.get("code") != "payments_unavailable":
                    wrong[route.method, route.path, name, value[:60]] = answer.status
    assert not wrong
    assert len(routes) > 20


async def test_a_prompt_of_as_many_characters_as_allowed_may_be_spelt_as_json_likes(whole: Whole) -> None:
    path = f"/v1/chatroom/{await whole.room()}/message"
    for text in (SMILE * 8000, "\u0001" * 8000, "\u20ac" * 8000, "x" * 8000):
        for escaped in (True, False):
            raw = json.dumps({"prompt": text}, ensure_ascii=escaped, indent=8).encode(errors="strict")
            answer = await send(whole, "POST", path, raw, JSON)
            assert (answer.status, answer.body["prompt"]) == (202, text), (len(raw), answer.body)
        over = await send(whole, "POST", path, json.dumps({"prompt": text + text[0]}).encode(), JSON)
        assert (over.status, over.body["errors"][0]["message"]) == (422, "must be at most 8000 characters")
    assert (await send(whole, "POST", path, b" " * 98_000, JSON)).code == "payload_too_large"


async def test_the_longest_prompt_that_can_be_set_can_be_sent(database_url: str, redis_url: str) -> None:
    async with whole_service(database_url, redis_url, PROMPT_MAX_CHARS="60000") as whole:
        path = f"/v1/chatroom/{await whole.room()}/message"
        answer = await send(whole, "POST", path, json.dumps({"prompt": SMILE * 60_000}).encode(), JSON)
        assert answer.status == 202
        over = await send(whole, "POST", path, json.dumps({"prompt": SMILE * 60_001}).encode(), JSON)
        assert over.status == 422


async def test_passwords_and_names_of_any_characters_fit_where_they_are_taken(whole: Whole) -> None:
    phone, password, other, name = new_phone(), SMILE * 128, "\U0001f601" * 128, SMILE * 100

    async def post(path: str, method: str = "POST", **body: Any) -> Answer:
        return await send(whole, method, path, json.dumps(body, indent=8).encode(), JSON)

    assert (await post("/v1/auth/signup", phone=phone, password=password, name=name)).status == 201
    code = (await post("/v1/auth/send-otp", phone=phone, password=password)).body["otp"]
    whole.client.token = (await post("/v1/auth/verify-otp", phone=phone, otp=code)).body["token"]
    changed = await post("/v1/auth/change-password", old_password=password, new_password=other)
    whole.client.token = changed.body["token"]
    assert (await post("/v1/user/me", "PATCH", name=name)).status == 200
    assert (await post("/v1/chatroom", name=name)).status == 201
    code = (await post("/v1/auth/forgot-password", phone=phone)).body["otp"]
    assert (await post("/v1/auth/reset-password", phone=phone, otp=code, new_password=password)).status == 200
    over = await post("/v1/auth/change-password", old_password=PASSWORD, new_password=SMILE * 129)
    assert over.status in (401, 422)
