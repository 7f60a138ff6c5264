"""A Redis of a test's own, and the ways in which it can be there and not serve."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from redis.asyncio import Redis

from gembackend.embedded.redis import EmbeddedRedis
from gembackend.plumbing import redis
from gembackend.prompts.stream import STREAM
from tests.servers import Home

PASSWORD = "a password"


class SickRedis:
    """A server that runs, and keeps its URL and its data through what is done to it: each ends with the block."""

    def __init__(self, server: EmbeddedRedis, url: str) -> None:
        self._server = server
        self.url = url

    @asynccontextmanager
    async def killed(self) -> AsyncIterator[None]:
        """SIGKILL; it comes back with its data."""
        self._signal(signal.SIGKILL)
        await asyncio.to_thread(asyncio.run, self._server.stop())
        try:
            yield
        finally:
            await asyncio.to_thread(asyncio.run, self._server.start())

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """Its sockets are open and nobody answers."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    @asynccontextmanager
    async def full(self) -> AsyncIterator[None]:
        """It refuses what needs memory."""
        async with self._admin() as admin:
            await admin.config_set("maxmemory", "1")
            try:
                yield
            finally:
                await admin.config_set("maxmemory", "0")

    @asynccontextmanager
    async def read_only(self) -> AsyncIterator[None]:
        """A replica whose master is nowhere."""
        async with self._admin() as admin:
            await admin.replicaof("127.0.0.1", "1")
            try:
                yield
            finally:
                await admin.replicaof("NO", "ONE")

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """It asks for another password, of those who are connected too."""
        async with self._admin() as admin:
            await admin.config_set("requirepass", PASSWORD)
            await admin.execute_command("AUTH", PASSWORD)
            await admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            try:
                yield
            finally:
                await admin.config_set("requirepass", "")

    @asynccontextmanager
    async def forbidding(self, *commands: str) -> AsyncIterator[None]:
        """Its access list lets nobody use these commands, by itself add to a stream."""
        commands = commands or ("xadd",)
        async with self._admin() as admin:
            await admin.execute_command("ACL", "SETUSER", "default", *(f"-{command}" for command in commands))
            try:
                yield
            finally:
                await admin.execute_command("ACL", "SETUSER", "default", *(f"+{command}" for command in commands))

    @asynccontextmanager
    async def usurped(self) -> AsyncIterator[None]:
        """Somebody else uses our key."""
        async with self._admin() as admin:
            await admin.set(STREAM, "mine")
            try:
                yield
            finally:
                await admin.delete(STREAM)

    def _admin(self) -> Redis:
        return redis.connect(self.url, connections=1)

    def _signal(self, number: signal.Signals) -> None:
        os.kill(int((self._server.home / "redis.pid").read_text()), number)


@asynccontextmanager
async def a_redis() -> AsyncIterator[SickRedis]:
    """A server for one test."""
    home = Home("redis")
    server = EmbeddedRedis(home.path)
    # On an event loop of Python's own: uvloop forks, and children forked beside gRPC may crash.
    url = await asyncio.to_thread(asyncio.run, server.start())
    try:
        yield SickRedis(server, url)
    finally:
        await asyncio.to_thread(asyncio.run, server.stop())
        home.remove()


Outage = Callable[[SickRedis], AbstractAsyncContextManager[None]]

OUTAGES: dict[Outage, str] = {
    SickRedis.killed: "cannot be reached",
    SickRedis.frozen: "does not answer in time",
    SickRedis.full: "is full (maxmemory)",
    SickRedis.read_only: "is read-only (a replica)",
    SickRedis.locked: "refuses the login",
    SickRedis.forbidding: "forbids a command or key that is needed (ACL)",
    SickRedis.usurped: "has something else under one of our keys (WRONGTYPE)",
}
"""Each way, and what is said of it."""
