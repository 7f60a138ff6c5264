"""Rules, alerts and dashboard: accepted by Prometheus's own tools, and true to what a service under it measures."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from gembackend.plumbing.metrics import REGISTRY
from ops.grafana.generate import FILE, text
from tests.acceptance.site import Site, User
from tests.accounts import new_phone
from tests.billing import selling_at, stand_in
from tests.processes import ROOT, Process, until
from tests.tools import on_path

RULES = ROOT / "ops/prometheus"
INTERVAL = "400ms"

QUIET = re.compile(r"actor_restarts|billing_events|retried|rate_limited_total|hashes_refused")
"""Queries about what does not happen in this test; their answer may be empty."""


def rules(name: str) -> list[dict[str, Any]]:
    """Every rule of a file."""
    groups = yaml.safe_load((RULES / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> Iterator[str]:
    """Every query of the dashboard."""
    for panel in json.loads(FILE.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


@pytest.mark.parametrize(
    "check",
    [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")],
    ids=["the configuration and the rules are valid", "every alert fires when it should, and not before"],
)
async def test_promtool(check: tuple[str, ...]) -> None:
    promtool = on_path("promtool", "prometheus")
    done = await asyncio.create_subprocess_exec(
        promtool, *check, cwd=RULES, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await done.communicate()
    assert done.returncode == 0, output.decode()


def test_every_alert_has_a_case_and_a_section_of_the_runbook() -> None:
    alerts = {rule["alert"]: rule for rule in rules("alerts.yml")}
    cases = yaml.safe_load((RULES / "alerts_test.yml").read_text())["tests"]
    fired = {
        expected["alertname"] for case in cases for expected in case["alert_rule_test"] if expected["exp_alerts"] != []
    }
    sections = set(re.findall(r"(?m)^### (Gembackend\w+)$", (ROOT / "ops/runbook.md").read_text()))
    assert fired == set(alerts) == sections
    for name, alert in alerts.items():
        assert alert["annotations"]["runbook_url"] == f"ops/runbook.md#{name.lower()}"
        assert alert["labels"]["severity"] in ("warning", "critical")


def test_every_metric_that_is_asked_for_exists() -> None:
    recorded = {rule["record"] for rule in rules("recording.yml")}
    measured = {metric.name for metric in REGISTRY.collect()}
    suffixes = ("_total", "_bucket", "_count", "_sum", "_info")
    expressions = [*queries(), *(rule["expr"] for name in ("recording.yml", "alerts.yml") for rule in rules(name))]
    for expression in expressions:
        for name in re.findall(r"\b(?:\w+:)*gembackend(?:_\w+|:\w+)(?::\w+)*", re.sub(r'"[^"]*"', "", expression)):
            bare = next((name.removesuffix(suffix) for suffix in suffixes if name.endswith(suffix)), name)
            assert name in recorded or bare in measured or name in measured, name


def test_the_dashboard_is_what_is_generated() -> None:
    assert FILE.read_text() == text(), "run python -m ops.grafana.generate"


async def test_the_dashboard_answers_and_no_alert_is_near(site: Site, tmp_path: Path) -> None:
    on_path("prometheus", "prometheus")
    async with AsyncExitStack() as stack:
        stripe = await stack.enter_async_context(stand_in())
        process = await site.start(**selling_at(stripe))
        server = await stack.enter_async_context(prometheus(tmp_path, process.url.removeprefix("http://")))
        user = await site.user(process)
        room = await user.room(process)

        async def unanswered() -> list[str]:
            await traffic(process, user, room)
            loud = [query for query in queries() if not QUIET.search(query)]
            return [query for query in loud if not await server.ask(query.replace("$__rate_interval", "20s"))]

        async def all_answered() -> bool:
            return not await unanswered()

        try:
            await until(all_answered, "every query has an answer")
        except AssertionError:
            raise AssertionError(f"without an answer: {await unanswered()}") from None
        for query in filter(QUIET.search, queries()):
            await server.ask(query.replace("$__rate_interval", "20s"))
        alerts = (await server.get("alerts"))["alerts"]
        assert [alert["labels"]["alertname"] for alert in alerts] in ([], ["GembackendCodesInReplies"])


async def traffic(process: Process, user: User, room: str) -> None:
    """One prompt, one page that is not there, one wrong password, and a way to pay."""
    await user.send(process, room, "Why is the sky blue?", Prefer="wait=10")
    await user.call(process, "GET", "/v1/nowhere")
    await user.call(process, "POST", "/v1/subscription/portal")
    await user.call(process, "POST", "/v1/subscribe/pro")
    await user.call(process, "POST", "/v1/auth/send-otp", {"phone": new_phone(), "password": "wrong"})


class Prometheus:
    """A running Prometheus."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        """What its API answers; fails unless it is a success."""
        async with self._http.get(f"{self._url}/api/v1/{path}", params=query) as response:
            answer = await response.json()
        assert answer["status"] == "success", answer
        return dict(answer["data"])

    async def ask(self, query: str) -> list[Any]:
        """The series that a query gives now."""
        return list((await self.get("query", query=query))["result"])

    async def ready(self) -> bool:
        """Whether it takes queries."""
        try:
            async with self._http.get(f"{self._url}/-/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False


@asynccontextmanager
async def prometheus(directory: Path, target: str) -> AsyncIterator[Prometheus]:
    """A real Prometheus with our rules, which scrapes a service often."""
    config = yaml.safe_load((RULES / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL, "scrape_timeout": INTERVAL}
    config["rule_files"] = [str(RULES / name) for name in config["rule_files"]]
    (job,) = config["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [target]}]
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = _free_port()
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        *(f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage", "--log.level=error"),
        cwd=directory,
    )
    try:
        async with aiohttp.ClientSession() as http:
            server = Prometheus(http, f"http://127.0.0.1:{port}")
            await until(server.ready, "Prometheus is ready")
            yield server
    finally:
        process.kill()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
