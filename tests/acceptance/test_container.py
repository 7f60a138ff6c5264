"""The Dockerfile's own steps, carried out in empty roots, and what comes of them run as the container would be."""

import asyncio
import signal
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import aiohttp
import psutil
import pytest

from gembackend import __version__
from gembackend.embedded.gemini import GeminiStandIn
from tests.acceptance.site import KEY
from tests.container import Container, Image, build
from tests.processes import ROOT, until


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """What the Dockerfile's last stage comes to."""
    with tempfile.TemporaryDirectory(prefix="gembackend-image-") as directory:
        yield build(ROOT / "Dockerfile", Path(directory))


@contextmanager
def relayed(path: str) -> Iterator[int]:
    """A port of this machine behind which is a Unix socket that only root may open."""
    opened: list[socket.socket] = []

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                outer, _ = listener.accept()
                inner = socket.socket(socket.AF_UNIX)
                inner.connect(path)
                opened.extend((outer, inner))
                for pair in ((outer, inner), (inner, outer)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
    for each in opened:
        each.close()


@pytest.fixture
async def environment(database_url: str, redis_url: str) -> AsyncIterator[dict[str, str]]:
    """What a container needs to serve, on real servers that it reaches over TCP."""
    database = urlsplit(database_url)
    where = parse_qs(database.query)
    standin = GeminiStandIn()
    sockets = f"{where['host'][0]}/.s.PGSQL.{where['port'][0]}", unquote(urlsplit(redis_url).path)
    with relayed(sockets[0]) as postgres, relayed(sockets[1]) as redis:
        yield {
            "DATABASE_URL": f"postgresql://postgres@127.0.0.1:{postgres}{database.path}",
            "REDIS_URL": f"redis://127.0.0.1:{redis}/0",
            "GEMINI_ENDPOINT": await standin.start(),
            "JWT_SECRET_KEY": KEY,
            "OTP_DELIVERY": "response",
            "SERVER_HOST": "127.0.0.1",
            "SERVER_PORT": str(free_port()),
        }
    await standin.stop()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_the_steps_of_the_dockerfile_make_a_command_that_runs_as_an_ordinary_user(image: Image) -> None:
    said = image.run(*image.entrypoint, "--version", environment={})
    assert (said.returncode, said.stdout) == (0, f"gembackend {__version__}\n"), said.stderr
    assert (image.root / "app/sql/migrate.sql").read_bytes() == (ROOT / "sql/migrate.sql").read_bytes()
    assert not (image.root / "src").exists(), "what it was built from stays behind"
    who = image.run("sh", "-c", "id -u; id -g; grep -E '^Cap(Eff|Bnd):' /proc/self/status", environment={})
    assert who.stdout.split() == ["10001", "10001", "CapEff:", 16 * "0", "CapBnd:", 16 * "0"]
    refused = image.run("sh", "-c", "touch /tmp/x; touch /app/x; touch /usr/local/x", environment={})
    assert refused.stderr.count("Read-only file system") == 3
    nothing = image.run(*image.entrypoint, *image.command, environment={})
    assert nothing.returncode == 2 and "DATABASE_URL is required" in nothing.stderr


async def test_what_was_built_checks_serves_drains_and_leaves_no_zombie_as_process_1_on_a_read_only_file_system(
    image: Image, environment: dict[str, str]
) -> None:
    checked = await asyncio.to_thread(image.run, *image.entrypoint, "check", environment=environment)
    assert checked.returncode == 0, checked.stdout + checked.stderr

    container = Container(image, environment)
    await container.start()
    try:
        await container.ready()
        inner = container.inside("sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline")
        assert inner.stdout == "/app/venv/bin/python /app/venv/bin/gembackend serve "
        assert container.first.uids().real == 10001
        async with aiohttp.ClientSession() as http, http.get(container.url + "/readyz") as ready:
            assert ready.status == 200, await ready.text()
        healthy = await asyncio.to_thread(container.inside, *image.healthcheck)
        assert healthy.returncode == 0, healthy.stderr

        left = container.inside("sh", "-c", "exec >/dev/null 2>&1; sleep 600 &")
        assert left.returncode == 0
        (orphan,) = container.first.children()
        assert orphan.name() == "sleep"
        orphan.send_signal(signal.SIGKILL)

        async def gone() -> bool:
            return not psutil.pid_exists(orphan.pid)

        await until(gone, "the end of an orphan seen by process 1", 5)

        container.first.send_signal(signal.Signals[image.stop_signal])
        assert await container.ended() == 0, container.tail()
        assert container.events("stopped", status=0)
    finally:
        await container.kill()
    unhealthy = await asyncio.to_thread(image.run, *image.healthcheck, environment=environment)
    assert unhealthy.returncode != 0 and "refused" in unhealthy.stderr


def test_the_base_image_is_pinned_by_digest_in_one_place() -> None:
    lines = Path(ROOT / "Dockerfile").read_text().splitlines()
    (pinned,) = [line for line in lines if line.startswith("ARG ")]
    name, _, digest = pinned.partition("@sha256:")
    assert name.startswith("ARG PYTHON=python:3.11.")
    assert len(bytes.fromhex(digest)) == 32
    assert {line.split()[1] for line in lines if line.startswith("FROM ")} == {"${PYTHON}"}
