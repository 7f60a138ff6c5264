"""What proxies do to requests and answers: HTTP/1.0, a path prefix, odd spellings, both families of addresses."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from gembackend import config
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.models import Body
from gembackend.web.address import client_address
from gembackend.web.body import json_reply, read_bytes
from gembackend.web.events import EventStream
from gembackend.web.routing import Route
from gembackend.web.server import HttpServer, build_app, metrics_app
from gembackend.web.streaming import stream_reply
from tests.raw import RawServer, Reply

PREFIX = "https://chat.example.org/api"


class Anything(Body, frozen=True):
    """A body that the handler looks at by itself."""


class Echo:
    """Routes that say what reached them, and streams that end well, break, or hang."""

    def __init__(self, settings: config.Settings) -> None:
        self.hanging = asyncio.Event()
        self._trusted = settings.trusted_proxies

    def table(self) -> list[Route]:
        return [
            Route("GET", "/v1/thing/{thing_id}", self.thing, "", session=False),
            Route("POST", "/v1/thing", self.make, "", session=False, raw_body=Anything),
            Route("GET", "/v1/me", self.me, "", session=False),
            Route("GET", "/v1/stream/{end}", self.stream, "", session=False, stream=True),
            Route("GET", "/v1/events", self.events, "", session=False, stream=True),
        ]

    async def thing(self, request: web.Request) -> web.StreamResponse:
        return json_reply({"id": request.match_info["thing_id"], "query": request.rel_url.raw_query_string})

    async def make(self, request: web.Request) -> web.StreamResponse:
        raw = await read_bytes(request, limit=100)
        return json_reply({"body": raw.decode()}, status=201, headers={"Location": "/v1/thing/7"})

    async def me(self, request: web.Request) -> web.StreamResponse:
        return json_reply(client_address(request, self._trusted))

    async def stream(self, request: web.Request) -> web.StreamResponse:
        return await stream_reply(request, self._pieces(request.match_info["end"]), headers={"X-Kind": "stream"})

    async def events(self, request: web.Request) -> web.StreamResponse:
        stream = EventStream(request, {})
        await stream.open(gone=self.hanging.set)
        stream.add("told", "1", b"{}")
        await stream.flush()
        return stream.response

    async def _pieces(self, end: str) -> AsyncGenerator[bytes, None]:
        yield b"[1,"
        yield b"2,"
        if end == "broken":
            raise Fault("busy", "half-way")
        if end == "hangs":
            self.hanging.set()
            await asyncio.Event().wait()
        yield b"3]"


async def nobody(_token: str) -> Any:
    raise Fault("unauthorized", "Nobody has a session here.")


async def well() -> dict[str, str | None]:
    return {}


@asynccontextmanager
async def serving(host: str = "127.0.0.1", **environment: str) -> AsyncIterator[tuple[RawServer, Echo]]:
    settings = config.load(environment, "dev")
    echo = Echo(settings)
    app = build_app(echo.table(), authenticate=nobody, health=well, settings=settings)
    http = HttpServer(app, host=host, port=0)
    await http.start()
    try:
        yield RawServer(http), echo
    finally:
        await http.stop(0.2)


@pytest.fixture
async def plain() -> AsyncIterator[RawServer]:
    async with serving() as (server, _):
        yield server


@pytest.fixture
async def prefixed() -> AsyncIterator[RawServer]:
    async with serving(PUBLIC_BASE_URL=PREFIX) as (server, _):
        yield server


def old(path: str, *headers: str, method: str = "GET", content: str = "") -> bytes:
    """A request as nginx sends it unless it is told otherwise."""
    lines = [f"{method} {path} HTTP/1.0", "Host: upstream", *headers]
    if content:
        lines.append(f"Content-Length: {len(content)}")
    return ("\r\n".join(lines) + "\r\n\r\n" + content).encode()


async def test_an_answer_to_http_1_0_ends_with_its_connection(plain: RawServer) -> None:
    answer = Reply(await plain.raw(old("/v1/thing/7", "Connection: close")))
    assert (answer.status, json.loads(answer.content)["id"]) == (200, "7")
    made = Reply(await plain.raw(old("/v1/thing", "Content-Type: application/json", method="POST", content="{}")))
    assert (made.status, made.headers["Location"]) == (201, "/v1/thing/7")
    assert Reply(await plain.raw(old("/nowhere"))).code == "not_found"
    head = Reply(await plain.raw(old("/livez", method="HEAD")))
    assert (head.status, head.content, head.headers["Content-Length"]) == (200, b"", "15")


async def test_http_1_0_may_keep_a_connection_where_the_length_is_known(plain: RawServer) -> None:
    twice = await plain.raw(old("/livez", "Connection: keep-alive"), old("/livez"))
    assert twice.count(b" 200 OK") == 2
    assert twice.count(b"Connection: keep-alive") == 1


@pytest.mark.parametrize("headers", [(), ("Connection: close",), ("Connection: keep-alive",)])
async def test_a_stream_to_http_1_0_has_no_chunks_and_ends_with_its_connection(
    plain: RawServer, headers: tuple[str, ...]
) -> None:
    answer = Reply(await plain.raw(old("/v1/stream/whole", *headers)))
    assert (answer.status, answer.content) == (200, b"[1,2,3]")
    assert not {"Transfer-Encoding", "Content-Length"} & answer.headers.keys()
    assert answer.headers.get("Connection") in (None, "close")
    events = Reply(await plain.raw(old("/v1/events", *headers)))
    assert events.content.endswith(b"event: told\ndata: {}\n\n") and events.content.startswith(b": listening")
    assert (events.headers["X-Accel-Buffering"], events.headers.get("Connection")) in (("no", None), ("no", "close"))


async def test_a_stream_to_http_1_1_ends_with_its_last_chunk(plain: RawServer) -> None:
    answer = Reply(await plain.raw(b"GET /v1/stream/whole HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"))
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.content == b"3\r\n[1,\r\n2\r\n2,\r\n2\r\n3]\r\n0\r\n\r\n"


async def test_a_stream_to_http_1_0_that_breaks_is_reset_and_not_ended() -> None:
    async with serving() as (server, echo):
        with pytest.raises(ConnectionResetError):
            await server.raw(old("/v1/stream/broken"))
        reading = asyncio.create_task(server.raw(old("/v1/stream/hangs")))
        await echo.hanging.wait()
        await server.http.stop(0.1)
        with pytest.raises(ConnectionResetError):
            await reading


@pytest.mark.parametrize(
    "start", ["GET /v1/stream/whole HTTP/2.0", "GET /v1/stream/whole HTTP/1.2", "GET /v1/stream/whole HTTP/0.9"]
)
async def test_a_version_that_nobody_speaks_is_no_failure_of_ours(plain: RawServer, start: str) -> None:
    assert Reply(await plain.raw(f"{start}\r\nHost: t\r\nConnection: close\r\n\r\n".encode())).status in (200, 400)
    preface = await plain.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert Reply(preface).status < 500


@pytest.mark.parametrize(
    "spelt",
    [
        "/v1/thing/7?a=1&b=%2F",
        "/v1/thing/7/?a=1&b=%2F",
        "/v1/thing/7//?a=1&b=%2F",
        "//v1//thing/7?a=1&b=%2F",
        "/api/v1/thing/7?a=1&b=%2F",
        "/api//v1/thing/7/?a=1&b=%2F",
        "//api/v1/thing/7?a=1&b=%2F",
        "http://upstream/v1/thing/7?a=1&b=%2F",
        "http://upstream:3000/api/v1/thing/7/?a=1&b=%2F",
    ],
)
async def test_however_a_target_is_spelt_it_is_the_same(prefixed: RawServer, spelt: str) -> None:
    answer = await prefixed.get(spelt)
    assert (answer.status, json.loads(answer.content)) == (200, {"id": "7", "query": "a=1&b=%2F"})
    assert (await prefixed.get(spelt, method="HEAD")).status == 200
    assert (await prefixed.get(spelt, method="DELETE")).headers["Allow"] == "GET,HEAD"


async def test_what_is_encoded_in_a_path_is_no_slash(plain: RawServer) -> None:
    assert json.loads((await plain.get("/v1/thing/a%2Fb%2F")).content)["id"] == "a/b/"
    assert (await plain.get("/v1/thing%2F7")).status == 404
    assert (await plain.get("/api/v1/thing/7")).status == 404
    assert (await plain.get("/apiary")).status == 404


async def test_a_post_is_not_sent_elsewhere_for_a_slash(prefixed: RawServer) -> None:
    for path in ("/v1/thing/", "/api/v1/thing/", "/v1//thing"):
        made = await prefixed.get(path, method="POST", content=b"hello")
        assert (made.status, json.loads(made.content)) == (201, {"body": "hello"})


async def test_links_keep_the_prefix_and_believe_no_header(prefixed: RawServer) -> None:
    forged = (
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Proto: ftp",
        "X-Forwarded-Prefix: /x",
    )
    for stripped in ("", "/api"):
        made = await prefixed.get(f"{stripped}/v1/thing", *forged, method="POST", content=b"{}")
        assert made.headers["Location"] == "/api/v1/thing/7"
        for spelt in ("/v1/", "/v1"):
            card = json.loads((await prefixed.get(stripped + spelt, *forged)).content)
            assert card["links"]["documentation"] == "/api/docs"
            for link in card["links"].values():
                assert (await prefixed.get(link)).status == 200
        document = json.loads((await prefixed.get(f"{stripped}/openapi.json", *forged)).content)
        assert [server["url"] for server in document["servers"]] == ["/api"]


async def test_without_a_prefix_links_begin_at_the_root(plain: RawServer) -> None:
    made = await plain.get("/v1/thing", method="POST", content=b"{}")
    assert made.headers["Location"] == "/v1/thing/7"
    assert json.loads((await plain.get("/v1")).content)["links"]["documentation"] == "/docs"
    assert json.loads((await plain.get("/openapi.json")).content)["servers"][0]["url"] == "/"


async def test_a_prefix_like_a_path_of_ours_is_the_proxys_to_strip() -> None:
    async with serving(PUBLIC_BASE_URL="https://chat.example.org/v1") as (server, _):
        assert (await server.get("/v1/thing/7")).status == 200
        assert json.loads((await server.get("/v1/")).content)["links"]["documentation"] == "/v1/docs"


async def test_the_page_names_its_files_from_where_it_is(prefixed: RawServer) -> None:
    for page, files in (("/docs", "docs/"), ("/docs/", ""), ("/api/docs", "docs/"), ("/api/docs/?x=/", "")):
        text = (await prefixed.get(page)).content.decode()
        assert f'src="{files}start.js"' in text and f'href="{files}swagger-ui.css"' in text, page
    assert b"../openapi.json" in (await prefixed.get("/api/docs/start.js")).content


async def test_a_body_may_come_in_chunks_or_be_announced(plain: RawServer) -> None:
    head = "POST /v1/thing HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nConnection: close\r\n"
    chunks = [f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), b"2\r\n{}\r\n", b"0\r\n\r\n"]
    assert json.loads(Reply(await plain.raw(*chunks)).content) == {"body": "{}"}
    announced = f"{head}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n".encode()
    interim, _, final = (await plain.raw(announced, b"{}")).partition(b"\r\n\r\n")
    assert interim == b"HTTP/1.1 100 Continue"
    assert json.loads(Reply(final).content) == {"body": "{}"}


async def test_what_means_nothing_to_a_get_is_ignored_but_for_a_large_body(plain: RawServer) -> None:
    assert (await plain.get("/v1/thing/7", content=b"x" * 70_000)).status == 413
    conditions = ("If-None-Match: *", "If-Modified-Since: Thu, 01 Jan 2037 00:00:00 GMT", "Range: bytes=0-1")
    for path in ("/v1/thing/7", "/docs/start.js", "/metrics", "/openapi.json"):
        assert (await plain.get(path, *conditions)).status == 200


async def reached(url: str) -> bytes:
    """The first line that a listener answers."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
    line = await reader.readline()
    await reader.read()
    writer.close()
    return line.rstrip()


@pytest.mark.parametrize(
    ("host", "url", "families"),
    [
        ("127.0.0.1", "http://127.0.0.1", "4"),
        ("0.0.0.0", "http://127.0.0.1", "4"),
        ("::1", "http://[::1]", "6"),
        ("::", "http://[::1]", "46"),
        ("127.0.0.1,::1", "http://127.0.0.1", "46"),
        ("0.0.0.0, ::", "http://127.0.0.1", "46"),
        ("::,0.0.0.0", "http://[::1]", "46"),
    ],
)
async def test_a_listener_is_reached_over_the_families_of_its_hosts(host: str, url: str, families: str) -> None:
    listener = HttpServer(metrics_app(), host=host, port=0)
    await listener.start()
    port = int(listener.url.rsplit(":", 1)[1])
    assert listener.url == f"{url}:{port}"
    for family, at in (("4", "127.0.0.1"), ("6", "[::1]")):
        if family in families:
            assert await reached(f"http://{at}:{port}") == b"HTTP/1.1 200 OK"
        else:
            with pytest.raises(OSError, match=r"refused|Connect call failed"):
                await reached(f"http://{at}:{port}")
    second = HttpServer(metrics_app(), host=host, port=port)
    with pytest.raises(OSError, match="in use"):
        await second.start()
    await second.stop(0)
    await listener.stop(0)
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await reached(listener.url)


async def test_a_name_is_listened_on_wherever_it_leads() -> None:
    listener = HttpServer(metrics_app(), host="localhost", port=0)
    await listener.start()
    assert await reached(listener.url) == b"HTTP/1.1 200 OK"
    await listener.stop(0)
    nowhere = HttpServer(metrics_app(), host="nowhere.invalid", port=0)
    with pytest.raises(OSError, match=r"\S"):
        await nowhere.start()


async def test_a_trusted_proxy_is_known_also_where_ipv4_looks_like_ipv6() -> None:
    async with serving("::", TRUSTED_PROXIES="127.0.0.0/8") as (server, _):
        assert json.loads((await server.get("/v1/me")).content) == "127.0.0.1"
        for given, client in (
            ("X-Forwarded-For: 198.51.100.1:5678", "198.51.100.1"),
            ("X-Forwarded-For: 1.1.1.1, [2001:db8:1:2::3]:443", "2001:db8:1:2::/64"),
        ):
            assert json.loads((await server.get("/v1/me", given)).content) == client
    async with serving("::", TRUSTED_PROXIES="10.0.0.0/8") as (server, _):
        assert json.loads((await server.get("/v1/me", "X-Forwarded-For: 1.1.1.1")).content) == "127.0.0.1"
