"""The real servers of one test process: a PostgreSQL with a migrated template database, and a Redis."""

import asyncio
import fcntl
import itertools
import os
import shutil
import tempfile
import threading
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import redis

from gembackend.embedded.postgres import EmbeddedPostgres, migrate
from gembackend.embedded.redis import EmbeddedRedis
from tests.pooler import PgBouncer

T = TypeVar("T")

# Nothing has to survive a power cut here.
FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "max_wal_size": "128MB",
}


def _memory() -> str | None:
    """A directory in memory with room for the servers, None when there is none: copying a database is copying three
    hundred small files, which takes a disk ten times as long."""
    shared = Path("/dev/shm")
    roomy = shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 2 * 2**30
    return str(shared) if roomy else None


class Home:
    """A directory for servers, gone with `remove`. Its lock is held as long as this process lives, so that what a run
    that was killed has left behind is known for it, and removed by the next one."""

    def __init__(self, kind: str, parent: str | None = None) -> None:
        for left in Path(parent or tempfile.gettempdir()).glob("gembackend-*/owner"):
            _remove_if_left(left)
        self.path = Path(tempfile.mkdtemp(prefix=f"gembackend-{kind}-", dir=parent))
        self._owner = _locked(self.path / "owner")

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path)
        if self._owner is not None:
            self._owner.close()


def _locked(path: Path) -> IO[str] | None:
    """The file, locked by this process; None when another holds it."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _remove_if_left(owner: Path) -> None:
    """Remove a directory whose owner is no more."""
    with suppress(OSError):
        lock = _locked(owner)
        if lock is not None:
            shutil.rmtree(owner.parent, ignore_errors=True)
            lock.close()


def with_database(url: str, name: str) -> str:
    """The same URL with another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


class Servers:
    """Starts both in a temporary directory and hands out databases. Its event loop runs in a thread of its own, so
    that synchronous fixtures can use it while a test's loop is running or not."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._home = Home("test", _memory())
        self._postgres = EmbeddedPostgres(self._home.path, settings=FAST)
        self._redis = EmbeddedRedis(self._home.path)
        self._admin: asyncpg.Connection | None = None
        self._poolers: dict[str, PgBouncer] = {}
        self._numbers = itertools.count(1)

    def start(self) -> None:
        """Start both and migrate the database that others are copied from."""
        self._thread.start()
        try:
            self._run(self._start())
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop both and remove their data."""
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._home.remove()

    def create_database(self, *, migrated: bool = True) -> str:
        """Make a database, with the current schema or empty, and return its URL."""
        name = f"test_{next(self._numbers)}"
        template = urlsplit(self._template).path[1:] if migrated else "template1"
        self._run(self._admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"))
        return with_database(self._template, name)

    def drop_database(self, url: str) -> None:
        """Remove a database, ending whatever connections it has."""
        self._run(self._admin.execute(f"DROP DATABASE IF EXISTS {urlsplit(url).path[1:]} WITH (FORCE)"))

    def pooled(self, url: str, mode: str) -> str:
        """The same database through a PgBouncer in this mode."""
        return self.pooler(mode).url(url)

    def pooler(self, mode: str) -> PgBouncer:
        """A PgBouncer before every database here, started when it is first wanted."""
        if mode not in self._poolers:
            pooler = PgBouncer(self._home.path / f"pooler-{mode}", self._template, mode)
            self._poolers[mode] = pooler
            self._run(pooler.start())
        return self._poolers[mode]

    def empty_redis(self) -> str:
        """Remove everything from Redis, functions and scripts too, and return its URL."""
        with redis.Redis.from_url(self._redis_url) as client:
            client.flushall()
            client.script_flush()
        return self._redis_url

    async def _start(self) -> None:
        self._template, self._redis_url = await asyncio.gather(self._postgres.start(), self._redis.start())
        await migrate(self._template)
        self._admin = await asyncpg.connect(with_database(self._template, "postgres"))

    async def _stop(self) -> None:
        if self._admin:
            await self._admin.close()
        for pooler in self._poolers.values():
            await pooler.stop()
        await asyncio.gather(self._postgres.stop(), self._redis.stop())

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
