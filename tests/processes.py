"""Real `gembackend serve` processes: started, heard through their logs, stopped, frozen and killed by a test."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 20.0
"""Seconds after which waiting for something fails."""

_SETPRIV = shutil.which("setpriv")
# A test run that is killed takes its processes with it.
_TIED = [_SETPRIV, "--pdeathsig", "KILL", "--"] if _SETPRIV else []


async def until(ask: Callable[[], Awaitable[T]], what: str, seconds: float = PATIENCE) -> T:
    """Ask again and again until the answer is true, and return it; fails, naming `what`, after so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            while not (answer := await ask()):
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {seconds:g} s") from None
    return answer


class Process:
    """One process of the service. Its log lines are kept in `lines`, parsed; what is no JSON has the key `text`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment` is all that the process gets, but for what Python needs."""
        self.lines: list[dict[str, Any]] = []
        self.url = ""
        self._environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment}
        self._news = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, without waiting until it is ready."""
        self._process = await asyncio.create_subprocess_exec(
            *_TIED,
            *(sys.executable, "-m", "gembackend", "serve"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
            cwd="/",  # where no .env is
            start_new_session=True,
            limit=2**20,
        )
        self._reading = asyncio.create_task(self._read(), name=f"log-of-{self.pid}")

    async def ready(self, seconds: float = PATIENCE) -> "Process":
        """Wait until it says that it is ready; fails with the end of its log when it ends instead."""
        self.url = (await self.logged("ready", seconds))["url"]
        return self

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, "it has not been started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.returncode is None

    def events(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        """The log lines so far with this `event`, and these fields."""
        wanted = {"event": name, **fields}
        return [line for line in self.lines if wanted.items() <= line.items()]

    async def logged(self, name: str, seconds: float = PATIENCE, **fields: Any) -> dict[str, Any]:
        """The first log line with this `event` and these fields, waited for if need be."""
        try:
            async with asyncio.timeout(seconds):
                while not (found := self.events(name, **fields)):
                    if self._reading.done():
                        raise AssertionError(f"{self.pid} ended without saying {name}:\n{self.tail()}")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{self.pid} did not say {name} within {seconds:g} s:\n{self.tail()}") from None
        return found[0]

    def tail(self) -> str:
        """The end of its log, for a person."""
        return "\n".join(f"    {line.get('text') or json.dumps(line)}" for line in self.lines[-15:])

    def terminate(self) -> None:
        """Ask it to stop (SIGTERM)."""
        os.kill(self.pid, signal.SIGTERM)

    async def kill(self) -> None:
        """End it on the spot (SIGKILL); harmless when it does not run."""
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
            await self.ended()

    async def freeze(self) -> None:
        """Stop its clock (SIGSTOP) and wait until it stands still."""
        os.kill(self.pid, signal.SIGSTOP)
        await until(self._stands_still, f"{self.pid} frozen")

    def thaw(self) -> None:
        """Let it go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    async def ended(self, seconds: float = PATIENCE) -> int:
        """Wait until it has ended, and return its exit status: -N for a death by signal N."""
        assert self._process is not None
        try:
            async with asyncio.timeout(seconds):
                status = await self._process.wait()
                await self._reading
        except TimeoutError:
            raise AssertionError(f"{self.pid} has not ended within {seconds:g} s:\n{self.tail()}") from None
        return status

    async def _stands_still(self) -> bool:
        return psutil.Process(self.pid).status() == psutil.STATUS_STOPPED

    async def _read(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        async for raw in self._process.stderr:
            text = raw.decode(errors="replace").rstrip()
            try:
                self.lines.append(json.loads(text))
            except ValueError:
                self.lines.append({"text": text})
            self._news.set()
        self._news.set()
