"""The metrics: clean for Prometheus's own checker, with exemplars, and bounded whatever clients send."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gembackend.app import Service
from gembackend.plumbing.metrics import REGISTRY
from gembackend.web.server import HttpServer
from tests.accounts import Client, settings
from tests.tools import on_path
from tests.whole import whole_service

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
ODD_METHODS = ("BREW", "PROPFIND", "TRACE", "get", "G\u00cbT", "X" * 60, "OPTIONS", "PURGE", "M-SEARCH", "QUERY")


@pytest.fixture
async def unstarted() -> AsyncIterator[Client]:
    """A client of a listener whose service stands on nothing: enough for what never reaches a room."""
    service = Service(settings("postgresql://127.0.0.1:9/nothing", "redis://127.0.0.1:9"))
    server = HttpServer(service.app, host="127.0.0.1", port=0)
    await server.start()
    async with Client(server.url) as client:
        yield client
    await server.stop(1)
    await service.stop(1)


async def test_promtool_finds_nothing_wrong(database_url: str, redis_url: str) -> None:
    promtool = on_path("promtool", "prometheus")
    async with whole_service(database_url, redis_url) as whole:
        await whole.ask(await whole.room(), "Why is the sky blue?")
        text = (await whole.client.call("GET", "/metrics")).body
    checking = await asyncio.create_subprocess_exec(
        *(promtool, "check", "metrics"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    complaints, _ = await checking.communicate(text)
    assert complaints.decode() == ""
    assert checking.returncode == 0


async def test_an_exemplar_leads_from_a_slow_bucket_to_the_log(unstarted: Client) -> None:
    long = "x" * 128
    for name in ("find-me-in-the-log", long):
        assert (await unstarted.call("GET", "/livez", headers={"X-Request-ID": name})).headers["X-Request-ID"] == name
    text = (await unstarted.call("GET", "/metrics", headers=OPENMETRICS)).body.decode()
    exemplars = {
        sample.exemplar.labels["request_id"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.exemplar is not None and sample.labels["route"] == "/livez"
    }
    assert exemplars & {"find-me-in-the-log", long[:64]}


async def test_ten_thousand_paths_and_odd_methods_add_no_series(unstarted: Client) -> None:
    await shower(unstarted, rounds=1)
    before = series()
    await asyncio.gather(*(shower(unstarted, rounds=313) for _ in range(4)))
    assert series() == before


async def shower(client: Client, rounds: int) -> None:
    """Eight requests a round over one connection, and each odd method over one of its own."""
    requests = [
        f"{method} {path}{secrets.token_hex(8)}?{secrets.token_hex(4)}=1 HTTP/1.1\r\nHost: x\r\n\r\n"
        for _ in range(rounds)
        for method in ("GET", "POST")
        for path in ("/", "/v1/chatroom/", "/v1/prompt/", "/docs/")
    ]
    answers = await exchange(client, "".join(requests), len(requests))
    assert answers == len(requests)
    for method in ODD_METHODS:
        for path in ("/", "/livez", f"/{secrets.token_hex(8)}"):
            await exchange(client, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n", 1)


async def exchange(client: Client, text: str, expected: int) -> int:
    """Send requests over one connection and count the answers."""
    host, port = client.base.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(text.encode("latin1"))
    counted = 0
    async with asyncio.timeout(30):
        while counted < expected and (line := await reader.readline()):
            counted += line.count(b"HTTP/1.1 ")
    writer.close()
    return counted


def series() -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    """The name and labels of every series."""
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for metric in REGISTRY.collect()
        for sample in metric.samples
    }


def test_every_metric_of_ours_has_a_help_text_and_a_base_unit() -> None:
    ours = [metric for metric in REGISTRY.collect() if metric.name.startswith("gembackend_")]
    assert len(ours) > 30
    for metric in ours:
        assert metric.documentation.endswith("."), metric.name
        assert not metric.name.endswith(("_ms", "_milliseconds", "_minutes", "_kb", "_total")), metric.name
