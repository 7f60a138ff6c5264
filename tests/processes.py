"""Real `gembackend serve` processes: started, heard through their logs, stopped, frozen and killed by a test."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from time import monotonic
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


async def no_later(ask: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    """Ask again and again until the answer is yes; fails when it is no to what was asked later than so many seconds
    from now. A busy machine may take its time to ask and to answer, and what is proved is as sharp as ever."""
    began = monotonic()
    while True:
        asked = monotonic() - began
        if await ask():
            return
        assert asked < seconds, f"{what}: not yet after {asked:.2f} s"


class Process:
    """One process of the service. Its log lines are kept in `lines`, parsed; what is no JSON has the key `text`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment` is all that the process gets, but for what Python needs."""
        self.lines: list[dict[str, Any]] = []
        self.url = ""
        self._environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment}
        self._news = asyncio.Event()
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, without waiting until it is ready."""
        self._process = self._spawn()
        log = asyncio.StreamReader(limit=2**20)
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(log), self._process.stderr
        )
        self._reading = asyncio.create_task(self._read(log, pipe), name=f"log-of-{self.pid}")

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
        return self._process is not None and self._process.poll() is None

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
                        status = await self.ended()
                        raise AssertionError(f"{self.pid} ended ({status}) without saying {name}:\n{self.tail()}")
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
                await asyncio.shield(self._reading)
                return await asyncio.to_thread(self._process.wait)
        except TimeoutError:
            raise AssertionError(f"{self.pid} has not ended within {seconds:g} s:\n{self.tail()}") from None

    async def _stands_still(self) -> bool:
        return psutil.Process(self.pid).status() == psutil.STATUS_STOPPED

    def _command(self) -> list[str]:
        """What is run."""
        return [sys.executable, "-m", "gembackend", "serve"]

    def _spawn(self) -> subprocess.Popen[bytes]:
        """Start it in Python's own way: uvloop forks, and a fork beside gRPC at work crashes the child now and then."""
        return subprocess.Popen(
            [*_TIED, *self._command()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self._environment,
            cwd="/",  # where no .env is
            start_new_session=True,
        )

    async def _read(self, log: asyncio.StreamReader, pipe: asyncio.ReadTransport) -> None:
        async for raw in log:
            text = raw.decode(errors="replace").rstrip()
            try:
                self.lines.append(json.loads(text))
            except ValueError:
                self.lines.append({"text": text})
            self._news.set()
        pipe.close()
        self._news.set()
