"""The HTTP server from the outside: odd, slow, broken and stopping connections, over raw sockets."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from statistics import median
from time import perf_counter
from typing import Annotated
from uuid import UUID

import msgspec
import pytest
import structlog
from aiohttp import web

from gembackend import config
from gembackend.plumbing import logs
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.health import Trouble
from gembackend.plumbing.metrics import REGISTRY
from gembackend.plumbing.models import Body
from gembackend.web import body, connection
from gembackend.web.body import json_reply, read_body
from gembackend.web.routing import Route
from gembackend.web.server import HttpServer, build_app, metrics_app
from tests.raw import RawServer, Reply


class Greeting(Body, frozen=True):
    """A body."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=5)]


class Somebody:
    """A session."""

    user_id = UUID(int=7)


class Rooms:
    """Routes that answer, hang, break, and break half-way."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.reasons: dict[str, Trouble | None] | Exception | None = {"database": None}

    def table(self) -> list[Route]:
        return [
            Route("POST", "/greet", self.greet, "", Greeting, session=False),
            Route("GET", "/thing/{thing_id}", self.hang, "", session=False),
            Route("GET", "/broken", self.broken, "", session=False),
            Route("GET", "/half", self.half, "", session=False, stream=True),
            Route("GET", "/mine", self.mine, ""),
        ]

    async def greet(self, request: web.Request) -> web.StreamResponse:
        return json_reply({"hello": (await read_body(request, Greeting)).name})

    async def hang(self, _request: web.Request) -> web.StreamResponse:
        self.entered.set()
        await self.gate.wait()
        return json_reply({"finished": True})

    async def broken(self, _request: web.Request) -> web.StreamResponse:
        raise RuntimeError("secret text")

    async def half(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        raise Fault("busy", "too late")

    async def mine(self, _request: web.Request) -> web.StreamResponse:
        return json_reply({"mine": True})

    async def authenticate(self, token: str) -> Somebody:
        if token != "good":
            raise Fault("unauthorized", "The token is not valid.")
        return Somebody()

    async def health(self) -> dict[str, Trouble | None]:
        """The troubles; None never comes, an exception is raised."""
        if self.reasons is None:
            await self.gate.wait()
        if isinstance(self.reasons, Exception):
            raise self.reasons
        return self.reasons or {}


class Server(RawServer):
    """A running server of these routes."""

    def __init__(self, http: HttpServer, rooms: Rooms) -> None:
        super().__init__(http)
        self.rooms = rooms


@pytest.fixture
def settings() -> config.Settings:
    return config.load({}, "dev")


@asynccontextmanager
async def serving(settings: config.Settings) -> AsyncIterator[Server]:
    rooms = Rooms()
    app = build_app(rooms.table(), authenticate=rooms.authenticate, health=rooms.health, settings=settings)
    http = HttpServer(app, host="127.0.0.1", port=0)
    await http.start()
    try:
        yield Server(http, rooms)
    finally:
        rooms.gate.set()
        await http.stop(0.2)


@pytest.fixture
async def server(settings: config.Settings) -> AsyncIterator[Server]:
    async with serving(settings) as server:
        yield server


@pytest.fixture
def log_lines() -> Iterator[Callable[[], list[dict[str, object]]]]:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()


async def test_every_answer_has_the_same_headers_and_no_version(server: Server) -> None:
    answers = [
        await server.get("/livez"),
        await server.get("/nowhere"),
        await server.get("/broken"),
        await server.get("/livez", "Expect: the unexpected"),
        await server.get("/livez", "Bad header"),
        await server.get("/livez", method="DELETE"),
        Reply(await server.raw(b"\x16\x03\x01\x00\xa5not HTTP at all\r\n\r\n")),
    ]
    assert [answer.status for answer in answers] == [200, 404, 500, 400, 400, 405, 400]
    for answer in answers:
        assert answer.headers["Server"] == "gembackend"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Request-ID"]
        assert b"secret" not in answer.content
        assert b"aiohttp" not in answer.content
    assert [answer.code for answer in answers[1:]] == [
        "not_found",
        "internal_error",
        "malformed_request",
        "malformed_request",
        "method_not_allowed",
        "malformed_request",
    ]


async def test_methods(server: Server) -> None:
    assert (await server.get("/livez", method="HEAD")).content == b""
    refused = await server.get("/livez", method="OPTIONS")
    assert (refused.status, refused.headers["Allow"]) == (405, "GET,HEAD")
    assert (await server.get("/half", method="HEAD")).headers["Allow"] == "GET"
    assert (await server.get("/greet", method="PATCH")).headers["Allow"] == "POST"
    assert (await server.get("*", method="OPTIONS")).status == 404
    assert (await server.get("/livez/")).status == 200
    assert (await server.get("/livez", method="BREW")).status in (400, 405)


@pytest.mark.parametrize("given", ["a", "A.b_c-1", "x" * 128])
async def test_a_sane_request_id_is_kept(server: Server, given: str) -> None:
    assert (await server.get("/livez", f"X-Request-ID: {given}")).headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a\tb", "\u00e9", "a;b", '{"a":1}', "a\nb"])
async def test_an_odd_request_id_is_replaced(
    server: Server, given: str, log_lines: Callable[[], list[dict[str, object]]]
) -> None:
    answer = await server.get("/livez", f"X-Request-ID: {given}")
    assert answer.headers["X-Request-ID"] not in ("", given)
    assert len([line for line in log_lines() if line["event"] == "request"]) == 1


async def test_one_access_line_a_request_with_the_template_and_never_the_query(
    server: Server, log_lines: Callable[[], list[dict[str, object]]]
) -> None:
    server.rooms.gate.set()
    await server.get("/thing/12345?token=secret", "X-Request-ID: mine")
    await server.get("/secret/path?token=secret")
    await server.get("/livez", "Secret header line")
    lines = [line for line in log_lines() if line["event"] == "request"]
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("GET", "/thing/{thing_id}", 200),
        ("GET", "unmatched", 404),
        ("OTHER", "unmatched", 400),
    ]
    assert lines[0]["request_id"] == "mine"
    assert "secret" not in json.dumps(lines).lower()


async def test_random_paths_and_methods_add_no_series(server: Server) -> None:
    def series() -> int:
        return sum(len(family.samples) for family in REGISTRY.collect() if "http_request" in family.name)

    await server.get("/nowhere")
    await server.get("/nowhere", method="PURGE")
    before = series()
    for nr in range(50):
        await server.get(f"/random/{nr}?x={nr}")
        await server.get(f"/random/{nr}", method="PURGE")
    assert series() == before


async def test_headers_that_do_not_come_end_the_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEADERS_SECONDS", 0.1)
    assert await server.raw() == b""
    assert await server.raw(b"GET /livez HTTP/1.1\r\nHost: te") == b""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n")
    assert b"200 OK" in await reader.readuntil(b'{"status":"ok"}')
    writer.write(b"GET /livez HTTP/1.1\r\nHo")
    async with asyncio.timeout(5):
        assert await reader.read() == b"", "the second request of a connection has no more time than the first"
    writer.close()


async def test_a_body_that_does_not_come_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_SECONDS", 0.1)
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.1)
    head = b"POST /greet HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n"
    answer = Reply(await server.raw(head, b'{"name":'))
    assert (answer.status, answer.code) == (400, "malformed_request")


async def test_a_body_cut_short_or_badly_framed_is_no_failure_of_ours(
    server: Server, log_lines: Callable[[], list[dict[str, object]]]
) -> None:
    head = b"POST /greet HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nConnection: close\r\n"
    assert await server.raw(head + b"Content-Length: 50\r\n\r\n" + b'{"name":"x"}', ends=True) == b""
    chunked = await server.raw(head + b"Transfer-Encoding: chunked\r\n\r\n", b'5\r\n{"nam\r\n', b"zz\r\n")
    assert Reply(chunked).status == 400
    both = await server.raw(head + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n")
    assert Reply(both).status == 400
    assert {line["level"] for line in log_lines()} == {"info"}


async def test_a_body_larger_than_allowed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.1)
    head = b"POST /greet HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nConnection: close\r\n"
    declared = Reply(await server.raw(head + b"Content-Length: 999999\r\n\r\n"))
    assert (declared.status, declared.code) == (413, "payload_too_large")
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    streamed = Reply(await server.raw(head + b"Transfer-Encoding: chunked\r\n\r\n", chunk, chunk, b"0\r\n\r\n"))
    assert (streamed.status, streamed.code) == (413, "payload_too_large")


async def test_an_answer_broken_half_way_is_cut_off(server: Server) -> None:
    raw = await server.raw(b"GET /half HTTP/1.1\r\nHost: t\r\n\r\n")
    assert b"first" in raw
    assert not raw.endswith(b"0\r\n\r\n")


async def test_a_client_that_goes_away_is_not_an_error(
    server: Server, log_lines: Callable[[], list[dict[str, object]]]
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /thing/1 HTTP/1.1\r\nHost: t\r\n\r\n")
    await server.rooms.entered.wait()
    writer.transport.abort()
    assert (await server.get("/livez")).status == 200
    server.rooms.gate.set()
    while not (lines := [line for line in log_lines() if line.get("route") == "/thing/{thing_id}"]):
        assert (await server.get("/livez")).status == 200
    assert lines[0]["status"] == 499
    assert {line["level"] for line in log_lines()} == {"info"}


async def test_stalled_connections_do_not_hold_up_others(server: Server) -> None:
    async def seconds() -> float:
        taken = []
        for _ in range(50):
            began = perf_counter()
            assert (await server.get("/livez")).status == 200
            taken.append(perf_counter() - began)
        return median(taken)

    ratios: list[float] = []
    while not ratios or (ratios[-1] >= 2 and len(ratios) < 5):  # a busy machine may spoil a round
        undisturbed = await seconds()
        stalled = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", server.port) for _ in range(300)))
        for _, writer in stalled:
            writer.write(b"POST /greet HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n")
        ratios.append(await seconds() / undisturbed)
        for _, writer in stalled:
            writer.transport.abort()
    assert ratios[-1] < 2, ratios


async def finishes(server: Server, stop: Callable[[], Awaitable[None]]) -> bytes:
    """What a request in flight gets when the server is told to stop meanwhile."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    idle, idler = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /thing/1 HTTP/1.1\r\nHost: t\r\n\r\n")
    await server.rooms.entered.wait()
    stopping = asyncio.create_task(stop())
    async with asyncio.timeout(5):
        assert await idle.read() == b"", "an idle connection is closed at once"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)
    server.rooms.gate.set()
    async with asyncio.timeout(5):
        answer = await reader.read()
        await stopping
    writer.close()
    idler.close()
    return answer


async def test_stopping_lets_requests_in_flight_finish(server: Server) -> None:
    answer = await finishes(server, lambda: server.http.stop(3))
    assert b"200 OK" in answer
    assert b'{"finished":true}' in answer
    await server.http.stop(1)


async def test_no_longer_accepting_lets_requests_in_flight_finish(server: Server) -> None:
    answer = await finishes(server, server.http.stop_accepting)
    assert b"Connection: close" in answer
    assert b'{"finished":true}' in answer


async def test_stopping_cuts_what_does_not_finish(server: Server) -> None:
    hanging = asyncio.create_task(server.raw(b"GET /thing/1 HTTP/1.1\r\nHost: t\r\n\r\n"))
    await server.rooms.entered.wait()
    async with asyncio.timeout(10):  # without a cut it never ends
        await server.http.stop(0.2)
    assert await hanging == b""


async def test_a_port_that_is_taken_is_told(server: Server) -> None:
    second = HttpServer(metrics_app(), host="127.0.0.1", port=server.port)
    with pytest.raises(OSError, match="in use"):
        await second.start()
    await second.stop(0)


async def test_sessions_are_checked_where_they_are_wanted(server: Server) -> None:
    assert (await server.get("/mine")).headers["WWW-Authenticate"] == "Bearer"
    assert (await server.get("/mine", "Authorization: Bearer bad")).code == "unauthorized"
    assert (await server.get("/mine", "Authorization: Bearer good")).status == 200
    twice = await server.get("/mine", "Authorization: Bearer good", "Authorization: Bearer good")
    assert twice.status in (400, 401)


async def test_readiness_lists_each_check(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = await server.get("/readyz")
    assert (ready.status, json.loads(ready.content)) == (200, {"status": "ok", "checks": {"database": {"ok": True}}})
    server.rooms.reasons = {"database": None, "redis": Trouble("is full", serious=False)}
    degraded = await server.get("/readyz")
    assert degraded.status == 200
    assert json.loads(degraded.content) == {
        "status": "degraded",
        "checks": {"database": {"ok": True}, "redis": {"ok": False, "detail": "is full"}},
    }
    server.rooms.reasons = {"database": Trouble("cannot be reached"), "redis": None}
    unready = await server.get("/readyz")
    assert unready.status == 503
    assert json.loads(unready.content) == {
        "status": "unavailable",
        "checks": {"database": {"ok": False, "detail": "cannot be reached"}, "redis": {"ok": True}},
    }
    for trouble in (RuntimeError("secret text"), None):
        server.rooms.reasons = trouble
        monkeypatch.setattr("gembackend.web.pages.READY_SECONDS", 0.05)
        unknown = await server.get("/readyz")
        assert unknown.status == 503
        assert not json.loads(unknown.content)["checks"]["checks"]["ok"]
        assert b"secret" not in unknown.content
        assert (await server.get("/livez")).status == 200


async def test_metrics_in_both_formats_and_on_their_own_port(server: Server) -> None:
    await server.get("/livez")
    text = await server.get("/metrics")
    assert text.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b"gembackend_http_request_duration_seconds_bucket" in text.content
    wanted = await server.get("/metrics", "Accept: application/openmetrics-text; version=1.0.0")
    assert wanted.headers["Content-Type"].startswith("application/openmetrics-text")
    assert wanted.content.endswith(b"# EOF\n")
    async with serving(config.load({"METRICS_PORT": "9"}, "dev")) as apart:
        assert (await apart.get("/metrics")).status == 404
    own = HttpServer(metrics_app(), host="127.0.0.1", port=0)
    await own.start()
    assert (await RawServer(own).get("/metrics")).status == 200
    assert (await RawServer(own).get("/livez")).status == 404
    await own.stop(0)


async def test_the_card(server: Server) -> None:
    card = json.loads((await server.get("/v1/")).content)
    assert card["name"] == "gembackend"
    assert card.keys() == {"name", "version", "links"}
