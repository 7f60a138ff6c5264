"""The service's own pages, through pytest-aiohttp's client: its card, liveness, readiness, metrics."""

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient

from gembackend import __version__
from gembackend.app import Service
from tests.accounts import CHEAP, Client, settings


@pytest.fixture
async def service(database_url: str, redis_url: str) -> AsyncIterator[Service]:
    chosen = settings(database_url, redis_url, GEMINI_ENDPOINT="grpc://127.0.0.1:9")
    running = Service(dataclasses.replace(chosen, server_port=0), password_cost=CHEAP)
    await running.start()
    yield running
    await running.stop(5)


@pytest.fixture
async def client(service: Service, aiohttp_client: AiohttpClient) -> TestClient:
    return await aiohttp_client(service.app)


async def test_the_card_says_what_this_is_and_its_links_lead_somewhere(client: TestClient) -> None:
    card = await (await client.get("/v1/")).json()
    assert (card["name"], card["version"]) == ("gembackend", __version__)
    for link in card["links"].values():
        assert (await client.get(link)).status == 200


async def test_a_ready_service_lists_what_it_stands_on(client: TestClient) -> None:
    answer = await client.get("/readyz")
    readiness = await answer.json()
    assert (answer.status, readiness["status"]) == (200, "ok")
    assert {"database", "redis", "intake", "reader", "committer", "sweeper"} <= readiness["checks"].keys()
    assert all(check == {"ok": True} for check in readiness["checks"].values())


async def test_without_redis_it_is_degraded_and_ready_all_the_same(database_url: str, tmp_path: Path) -> None:
    chosen = settings(database_url, f"unix://{tmp_path}/nobody", GEMINI_ENDPOINT="grpc://127.0.0.1:9")
    service = Service(dataclasses.replace(chosen, server_port=0), password_cost=CHEAP)
    await service.start()
    try:
        async with Client(service.url) as client:
            answer = await client.call("GET", "/readyz")
        assert (answer.status, answer.body["status"]) == (200, "degraded")
        checks = answer.body["checks"]
        assert checks.pop("redis") == {"ok": False, "detail": "cannot be reached"}
        assert all(check == {"ok": True} for check in checks.values())
    finally:
        await service.stop(5)


async def test_a_stopping_service_is_not_ready(service: Service, client: TestClient) -> None:
    await service.stop(5)
    answer = await client.get("/readyz")
    assert answer.status == 503
    assert (await answer.json())["checks"]["process"] == {"ok": False, "detail": "shutting down"}
    assert (await client.get("/livez")).status == 200


async def test_what_cannot_be_closed_leaves_nothing_else_open(
    service: Service, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.get("/readyz")
    assert service.database.usage()[1] > 0

    async def broken(*_: object) -> None:
        raise OSError

    for part, close in ((service._supervisor, "stop"), (service._auth, "stop"), (service._gemini, "close")):
        monkeypatch.setattr(part, close, broken)
    monkeypatch.setattr(service._redis, "aclose", broken)
    await service.stop(5)
    assert service.database.usage() == service._engine_database.usage() == (0, 0)
    assert service._listeners[0]._runner.server is None
    monkeypatch.undo()  # the fixture stops it once more, for good


async def test_metrics_count_requests_by_route_template(client: TestClient) -> None:
    await client.get("/v1/chatroom/01a20454-44a5-71c7-8f49-2353c39fef8a")
    text = await (await client.get("/metrics")).text()
    assert 'route="/v1/chatroom/{chatroom_id}"' in text
    assert "01a20454" not in text
    for name in ("prompts_accepted_total", "queue_depth", "prompts_in_flight", "event_loop_lag_seconds"):
        assert f"gembackend_{name}" in text
    openmetrics = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.content_type == "application/openmetrics-text"
    assert (await openmetrics.text()).endswith("# EOF\n")
