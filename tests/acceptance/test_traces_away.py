"""Traces that are off, cannot be had, or have nowhere to go."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gembackend import config
from gembackend.check import check
from tests.acceptance.site import Site
from tests.collector import Collector
from tests.processes import ROOT, Process

SOON = {"OTEL_BSP_SCHEDULE_DELAY": 50}
CONFIGURED = {
    "DATABASE_URL": "postgresql://127.0.0.1:9/nothing",
    "REDIS_URL": "redis://127.0.0.1:9",
    "JWT_SECRET_KEY": "a key for tests: 0fQm3WcXr8LzT5uJp2VbNe7KdS9YhG41",
    "GEMINI_ENDPOINT": "grpc://127.0.0.1:9",
    "OTP_DELIVERY": "response",
}

TELL_MODULES = """
import atexit, sys
atexit.register(
    lambda: print("modules:", *(name for name, module in sys.modules.items() if module is not None), file=sys.stderr)
)
"""
"""A sitecustomize.py that says at the end of a process what it has imported."""


@asynccontextmanager
async def silence() -> AsyncIterator[str]:
    """The URL of something that takes connections and never answers."""
    over = asyncio.Event()

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        over.set()
        server.close()


async def answer_one(site: Site, process: Process) -> None:
    user = await site.user(process)
    prompt = await user.finished(process, await user.accepted(process, await user.room(process), "Why?"))
    assert prompt["status"] == "answered"


@pytest.mark.parametrize("on", [False, True], ids=["off", "on"])
async def test_nothing_of_opentelemetry_is_imported_while_traces_are_off(site: Site, on: bool, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(TELL_MODULES)
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"} if on else {}
    process = await site.start(PYTHONPATH=f"{tmp_path}:{ROOT}", **endpoint)
    await answer_one(site, process)
    process.terminate()
    assert await process.ended() == 0
    [told] = [line["text"] for line in process.lines if line.get("text", "").startswith("modules: ")]
    modules = told.split()
    assert "gembackend.plumbing.traces" in modules
    assert any(name.startswith(("opentelemetry.exporter", "gembackend.plumbing.otel")) for name in modules) is on
    assert any("trace_id" in line for line in process.lines) is on


async def test_a_collector_that_is_away_costs_one_line_and_nothing_else(site: Site) -> None:
    process = await site.start(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_EXPORTER_OTLP_TIMEOUT=0.2, **SOON)
    for _ in range(3):
        await answer_one(site, process)
        await process.logged("traces_not_taken", reason="ConnectionError")
    process.terminate()
    assert await process.ended() == 0
    assert len(process.events("traces_not_taken")) == 1
    assert not [line for line in process.lines if "opentelemetry" in str(line.get("module")) or "text" in line]


async def test_a_collector_that_comes_back_is_greeted(site: Site) -> None:
    collector = Collector()
    collector.status = 500
    process = await site.start(OTEL_EXPORTER_OTLP_ENDPOINT=await collector.start(), **SOON)
    await answer_one(site, process)
    await process.logged("traces_not_taken", reason="500")
    collector.status = 200
    await answer_one(site, process)
    await process.logged("traces_taken_again")
    await collector.stop()


async def test_a_collector_that_never_answers_does_not_hold_up_the_end(site: Site) -> None:
    async with silence() as endpoint:
        process = await site.start(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, SHUTDOWN_GRACE_SECONDS=60, **SOON)
        await answer_one(site, process)
        process.terminate()
        assert await process.ended() == 0, "two seconds are for the last spans, not the grace"


async def test_a_queue_that_is_full_drops_spans_and_holds_nobody_up(site: Site) -> None:
    small = {"OTEL_BSP_MAX_QUEUE_SIZE": 2, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": 2}
    async with silence() as endpoint:
        process = await site.start(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, **small)
        for _ in range(3):
            await answer_one(site, process)
        full = [line for line in process.lines if "Queue full" in line.get("event", "")]
        assert 1 <= len(full) <= 2, "the SDK says so every 20 seconds at most"


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gembackend", *arguments],
        env={"PYTHONPATH": str(ROOT), **CONFIGURED, **environment},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["serve", "check", "dev"])
def test_without_the_extra_the_start_is_refused_with_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").touch()
    hidden = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    done = command(name, **hidden)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("gembackend: OTEL_EXPORTER_OTLP_ENDPOINT needs OpenTelemetry")
    assert "pip install 'gembackend[otel]'" in line


def test_variables_that_opentelemetry_cannot_work_with_are_refused_without_a_traceback() -> None:
    odd = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_MAX_QUEUE_SIZE": "0"}
    served, checked = command("serve", **odd), command("check", **odd)
    assert (served.returncode, checked.returncode) == (1, 1)
    [line] = [line for line in served.stderr.splitlines() if line.startswith("gembackend: ")]
    assert "max_queue_size" in line
    assert "FAIL  Traces: OpenTelemetry cannot work" in checked.stdout
    assert "Traceback" not in served.stderr + checked.stderr


async def test_check_says_whether_the_collector_takes_spans() -> None:
    collector = Collector()
    endpoint = await collector.start()

    async def checked() -> str:
        lines: list[str] = []
        await check(config.load({**CONFIGURED, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, "serve"), lines.append)
        [line] = [line for line in lines if "Traces" in line]
        return line

    assert await checked() == "ok    Traces: the collector takes spans"
    collector.status = 401
    assert await checked() == "FAIL  Traces: the collector does not take spans (401)"
    await collector.stop()
    assert await checked() == "FAIL  Traces: the collector does not take spans (ConnectionError)"
