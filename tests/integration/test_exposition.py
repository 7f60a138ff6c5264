"""The text of the metrics: which one is asked for, and that many who ask share it."""

import asyncio
import gzip
import threading
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gembackend.web import exposition
from gembackend.web.exposition import Exposition, prefers_openmetrics, takes_gzip
from tests.processes import until

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "modern"),
    [
        (PROMETHEUS_2, True),
        (PROMETHEUS_3, True),
        ("application/openmetrics-text", True),
        ('APPLICATION/OpenMetrics-Text; Version="1.0.0"', True),
        ("text/plain;q=0.5, application/openmetrics-text", True),
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=0.2, text/plain;q=0.5", False),
        ("application/openmetrics-text; version=x", False),
        ("application/openmetrics-text; version=1.x", False),
        ("application/openmetrics-text; version=", False),
        ("application/openmetrics-text; version=2.0.0", False),
        ("application/openmetrics-text; q=NaN", False),
        ("application/openmetrics-text; q=1e9", False),
        (";q=1,,;=;", False),
    ],
)
def test_the_format_that_is_asked_for(accept: str, modern: bool) -> None:
    assert prefers_openmetrics([accept]) is modern
    assert prefers_openmetrics(["image/png", accept]) is modern


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [("gzip", True), ("br, GZIP;q=0.5", True), ("", False), ("gzip;q=0", False), ("gzip;q=x", False), ("*", False)],
)
def test_the_coding_that_is_asked_for(accepted: str, packed: bool) -> None:
    assert takes_gzip([accepted]) is packed


class Source:
    """A collector that counts how often it is asked, and in which threads; it waits for a gate."""

    def __init__(self) -> None:
        self.asked = 0
        self.threads: set[int] = set()
        self.gate = threading.Event()

    def collect(self) -> list[Any]:
        self.asked += 1
        self.threads.add(threading.get_ident())
        assert self.gate.wait(10)
        counter = Counter("things", "Things.", registry=None)
        counter.inc(self.asked)
        return list(counter.collect())


def asking(**headers: str) -> web.Request:
    return make_mocked_request(
        "GET", "/metrics", headers={key.replace("_", "-"): text for key, text in headers.items()}
    )


async def test_however_many_ask_the_text_is_made_once_a_second_and_not_on_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, registry, now = Source(), CollectorRegistry(), 100.0
    registry.register(source)
    source.asked = 0
    monkeypatch.setattr(exposition, "monotonic", lambda: now)
    texts = Exposition(registry)
    scrapes = [asyncio.create_task(texts.scrape(asking())) for _ in range(64)]

    async def begun() -> bool:
        return source.asked > 0

    await until(begun, "the text in the making")
    scrapes[0].cancel()
    source.gate.set()
    answers = await asyncio.gather(*scrapes[1:])
    assert {answer.body for answer in answers} == {answers[0].body}
    assert (source.asked, threading.get_ident() in source.threads) == (1, False)
    packed = await texts.scrape(asking(Accept_Encoding="gzip"))
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == answers[0].body
    assert source.asked == 1, "what is packed is the same text"
    now += 0.9
    await texts.scrape(asking())
    assert source.asked == 1
    now += 0.2
    assert b"things_total 2.0" in (await texts.scrape(asking())).body


async def test_what_could_not_be_made_is_tried_again() -> None:
    source, registry = Source(), CollectorRegistry()
    source.gate.set()
    registry.register(source)
    texts = Exposition(registry)
    source.gate.clear()
    source.gate.wait = lambda _seconds: False
    with pytest.raises(AssertionError):
        await texts.scrape(asking())
    source.gate.wait = lambda _seconds: True
    assert (await texts.scrape(asking())).status == 200


async def test_both_formats_are_what_they_say() -> None:
    texts = Exposition()
    plain = await texts.scrape(asking(Accept="text/plain"))
    assert plain.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert len(list(parse_text(plain.body.decode()))) > 40
    modern = await texts.scrape(asking(Accept=PROMETHEUS_3))
    assert modern.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert len(list(parse_openmetrics(modern.body.decode()))) > 40
    assert plain.headers["Vary"] == modern.headers["Vary"] == "Accept, Accept-Encoding"
