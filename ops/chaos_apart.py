"""Processes of a chaos run's own, which are told things in lines of JSON and tell things in such lines."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from tests.processes import ROOT

LONGEST_LINE = 2**20


class Apart:
    """A module that runs in a process of its own; `hear` gets each of its lines."""

    def __init__(self, module: str, hear: Callable[[dict[str, Any]], None]) -> None:
        self._module = module
        self._hear = hear

    async def start(self, **first: Any) -> None:
        """Start it and send the first line."""
        self._process = self._spawn()
        self._reading = asyncio.create_task(self._read(), name=self._module)
        self.tell(**first)

    def tell(self, **line: Any) -> None:
        """Send a line; nothing happens when it has ended."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
            self._process.stdin.flush()

    async def end(self) -> int:
        """Let it end and hear the rest: its exit status."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        await self._reading
        return await asyncio.to_thread(self._process.wait)

    def _spawn(self) -> subprocess.Popen[bytes]:
        """Start it in Python's own way, as tests/processes.py starts the service and for the same reason."""
        return subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C is for the run, which lets it end
        )

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in _lines(self._process.stdout):
            self._hear(line)


async def heard_lines() -> AsyncIterator[dict[str, Any]]:
    """What the process is told, on its own stdin."""
    async for line in _lines(sys.stdin):
        yield line


async def _lines(file: Any) -> AsyncIterator[dict[str, Any]]:
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    pipe, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    async for raw in reader:
        yield json.loads(raw)
    pipe.close()
