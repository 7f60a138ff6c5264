"""The commands of ops/, run as a person does, in a copy of the checkout."""

import asyncio
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from tests.accounts import Client

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
COMMANDS = sorted(
    str(path.relative_to(ROOT / "ops"))
    for path in (ROOT / "ops").rglob("*")
    if path.is_file() and os.access(path, os.X_OK)
)
"""Every program in ops/."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of this checkout, at a path with a space, whose .venv is complete and uses this one's packages."""
    copy = tmp_path / "the checkout"
    for name in ("gembackend", "sql", "ops"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", copy)
    programs = copy / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    (programs / "gembackend").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gembackend "$@"\n')
    (programs / "gembackend").chmod(0o755)
    stamp = runpy.run_path(str(copy / "ops" / "install.py"))["wanted_stamp"](copy, sys.version)
    (copy / ".venv" / "stamp").write_bytes(stamp)
    return copy


def tools(checkout: Path, *names: str) -> Path:
    """A directory for PATH with nothing but these programs."""
    path = checkout / "tools"
    path.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found
        (path / name).symlink_to(found)
    return path


class Run:
    """`ops/run` at work. `said` is what it printed so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[str] = []
        self.descendants: list[psutil.Process] = []

    async def ready(self) -> str:
        """Wait until it says where it is ready, and return that URL."""
        assert self.process.stdout
        async with asyncio.timeout(PATIENCE):
            async for line in self.process.stdout:
                self.said.append(line.decode().rstrip())
                if found := re.fullmatch(r"gembackend is ready at (http://\S+) .*", self.said[-1]):
                    self.descendants = psutil.Process(self.process.pid).children(recursive=True)
                    return found[1]
        raise AssertionError("it ended:\n" + "\n".join(self.said))

    async def ended(self) -> int:
        """Wait until it and everything it started have ended, and return its exit status."""
        assert self.process.stdout
        async with asyncio.timeout(PATIENCE):
            self.said += (await self.process.stdout.read()).decode().splitlines()
            status = await self.process.wait()
        left = (await asyncio.to_thread(psutil.wait_procs, self.descendants, PATIENCE))[1]
        assert left == []
        return status


class Runs:
    """Starts `ops/run`, or another command, in a checkout."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self.started: list[Run] = []

    async def __call__(self, *command: str) -> Run:
        """Start it in the root directory, with its output in one pipe."""
        process = await asyncio.create_subprocess_exec(
            *(command or (str(self.checkout / "ops" / "run"),)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "SERVER_PORT": "0", "PYTHONPATH": "/nowhere"},
            cwd="/",
            start_new_session=True,
        )
        self.started.append(Run(process))
        return self.started[-1]


@pytest.fixture
async def run(checkout: Path) -> AsyncIterator[Runs]:
    """Starts commands; what a failed test left running is killed at the end, and its servers stop by themselves."""
    runs = Runs(checkout)
    yield runs
    for started in runs.started:
        if started.process.returncode is None:
            started.process.kill()
            await started.ended()


async def test_one_command_gives_a_service_that_keeps_its_data_and_leaves_nothing_running(run: Runs) -> None:
    first = await run()
    async with Client(await first.ready()) as client:
        phone, password = "+15550001111", "correct horse battery"
        client.token = await client.join(phone, password)
        room = (await client.call("POST", "/v1/chatroom", {"name": "first"})).body["id"]
        answer = await client.call(
            "POST", f"/v1/chatroom/{room}/message", {"prompt": "Why is the sky blue?"}, headers={"Prefer": "wait=30"}
        )
        assert (answer.status, answer.body["status"]) == (200, "answered")
        assert "stand-in" in answer.body["reply"]["content"]
    assert not any(re.match(r"\[\d/\d\]", line) for line in first.said), "a complete .venv was installed into"
    assert any("first start only" in line for line in first.said)
    names = {process.name() for process in first.descendants}
    assert "postgres" in names
    assert names & {"redis-server", "valkey-server"}

    second = await run()
    assert await second.ended() == 1
    assert second.said == [
        f"gembackend: another `gembackend dev` (process {first.process.pid}) is using {run.checkout / '.data'}: stop "
        "it, or give this one a directory of its own with GEMBACKEND_DATA_DIR"
    ]

    first.process.send_signal(signal.SIGINT)
    assert await first.ended() == 0

    again = await run()
    async with Client(await again.ready()) as client:
        client.token = await client.log_in(phone, password)
        messages = (await client.call("GET", f"/v1/chatroom/{room}/message/all")).body["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant"]
    assert not any("first start only" in line for line in again.said)
    again.process.send_signal(signal.SIGTERM)
    assert await again.ended() == 0


async def test_it_stops_when_the_shell_that_started_it_is_killed(run: Runs) -> None:
    shell = await run("sh", "-c", f"'{run.checkout}/ops/run' & wait")
    await shell.ready()
    shell.process.kill()
    assert await shell.ended() == -signal.SIGKILL


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("asked", ["--help", "-h"])
def test_every_command_explains_itself_and_installs_nothing(checkout: Path, name: str, asked: str) -> None:
    shutil.rmtree(checkout / ".venv")
    done = subprocess.run(
        [checkout / "ops" / name, asked],
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": str(tools(checkout, "sh", "cat", "dirname"))},
        check=True,
        timeout=20,
    )
    assert done.stdout.startswith(f"usage: ops/{name}")
    assert done.stderr == ""
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"test"}))
def test_every_command_names_the_option_that_it_does_not_know(name: str) -> None:
    done = subprocess.run([ROOT / "ops" / name, "--bogus"], capture_output=True, text=True, cwd="/", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(rf"^ops/{name}: .*--bogus$", done.stderr, re.MULTILINE), done.stderr


def test_the_test_command_hands_its_arguments_to_pytest_after_lint_and_types(checkout: Path) -> None:
    python = checkout / ".venv/bin/python"
    python.unlink()
    python.write_text(f'#!/bin/sh\n[ "$1" = -I ] && exec "{sys.executable}" "$@"\nprintf "<%s>" "$@"; echo\n')
    python.chmod(0o755)
    done = subprocess.run(
        [checkout / "ops/test", "-k", "two words", "--maxfail=1"], capture_output=True, text=True, cwd="/", check=True
    )
    assert [line for line in done.stdout.splitlines() if line.startswith("<")] == [
        "<-m><ruff><check><.>",
        "<-m><ruff><format><--check><.>",
        "<-m><mypy>",
        "<-m><pytest><-n><2><--dist><worksteal><-k><two words><--maxfail=1>",
    ]


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("exit 127", "no Python 3.11 or newer was found"),
        ('case "$*" in *version_info*3,*11*) exit 1;; esac', "no Python 3.11 or newer was found"),
        ('case "$*" in *ensurepip*) exit 1;; *print*) echo python3.12;; esac', "apt-get install python3.12-venv"),
    ],
    ids=["none", "too old", "without venv"],
)
def test_a_machine_without_a_fit_python_is_told_what_to_install(checkout: Path, python: str, said: str) -> None:
    shutil.rmtree(checkout / ".venv")
    path = tools(checkout, "sh", "dirname", "cat", "cmp")
    (path / "python3").write_text(f"#!/bin/sh\n{python}\n")
    (path / "python3").chmod(0o755)
    done = subprocess.run([checkout / "ops" / "setup"], capture_output=True, text=True, env={"PATH": str(path)})
    assert done.returncode == 1
    assert said in done.stderr
