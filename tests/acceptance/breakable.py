"""A PostgreSQL and a Redis to be stopped, killed, frozen and emptied."""

import asyncio
import itertools
import os
import signal
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import psutil
import redis.asyncio

from gembackend.embedded.postgres import EmbeddedPostgres, migrate
from gembackend.embedded.redis import EmbeddedRedis
from tests.servers import FAST, Home, with_database
from tests.sick_redis import SickRedis

T = TypeVar("T")

# A commit that was confirmed survives the server's death.
_SETTINGS = FAST | {"synchronous_commit": "on"}


class Breakable:
    """Both servers in a temporary directory, started by the first `heal`. They keep their URLs and their data."""

    def __init__(self) -> None:
        self._home = Home("break")
        self._postgres = EmbeddedPostgres(self._home.path, settings=_SETTINGS)
        self._redis = EmbeddedRedis(self._home.path)
        self._frozen: list[psutil.Process] = []
        self._numbers = itertools.count(1)
        self._postgres_runs = self._redis_runs = False
        self.postgres_url = ""
        self.redis_url = ""

    async def heal(self) -> None:
        """Make both run."""
        self.thaw_postgres()
        await asyncio.gather(self.start_postgres(), self.start_redis())

    async def create_database(self) -> str:
        """Make a database with the current schema: its URL."""
        name = f"site_{next(self._numbers)}"
        connection = await asyncpg.connect(self.postgres_url)
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()
        url = with_database(self.postgres_url, name)
        await _apart(migrate(url))
        return url

    async def empty_redis(self) -> None:
        """FLUSHALL."""
        async with redis.asyncio.from_url(self.redis_url) as client:
            await client.flushall()

    async def stop_postgres(self) -> None:
        """Stop it with its stop signal and wait for its end; every session is cut off."""
        await _apart(self._postgres.stop())
        self._postgres_runs = False

    async def start_postgres(self) -> None:
        """Start it unless it runs, and wait until it answers."""
        if not self._postgres_runs:
            url = await _apart(self._postgres.start())
            assert self.postgres_url in ("", url)
            self.postgres_url, self._postgres_runs = url, True

    async def freeze_postgres(self) -> None:
        """Stop the clock of the server and of each of its processes: sockets stay open and nobody answers."""
        server = psutil.Process(_pid(self._postgres.home / "postmaster.pid"))
        self._frozen = [server, *server.children(recursive=True)]
        for process in self._frozen:
            process.send_signal(signal.SIGSTOP)

    def thaw_postgres(self) -> None:
        """Let it go on."""
        for process in self._frozen:
            process.send_signal(signal.SIGCONT)
        self._frozen = []

    async def kill_redis(self) -> None:
        """SIGKILL; its append-only file stays."""
        os.kill(_pid(self._redis.home / "redis.pid"), signal.SIGKILL)
        await _apart(self._redis.stop())
        self._redis_runs = False

    async def start_redis(self) -> None:
        """Start it unless it runs, and wait until it has loaded its data."""
        if not self._redis_runs:
            url = await _apart(self._redis.start())
            assert self.redis_url in ("", url)
            self.redis_url, self._redis_runs = url, True

    @property
    def sick_redis(self) -> SickRedis:
        """What may be done to the Redis that runs, beside killing it."""
        return SickRedis(self._redis, self.redis_url)

    def close(self) -> None:
        """Stop both, outside any event loop of a test, and remove their data."""
        self.thaw_postgres()
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, self._stop()).result()
        self._home.remove()

    async def _stop(self) -> None:
        await asyncio.gather(self._postgres.stop(), self._redis.stop())


async def _apart(work: Coroutine[Any, Any, T]) -> T:
    """Do it on an event loop of Python's own, in a thread: uvloop forks, and children forked beside gRPC may crash."""
    return await asyncio.to_thread(asyncio.run, work)


def _pid(file: Path) -> int:
    return int(file.read_text().split("\n")[0])
