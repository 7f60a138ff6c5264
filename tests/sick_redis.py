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
    """One server that keeps its URL and its data through what is done to it."""

    def __init__(self) -> None:
        self._home = Home("redis")
        self._server = EmbeddedRedis(self._home.path)
        self.url = ""
        self.admin: Redis

    async def __aenter__(self) -> "SickRedis":
        # On an event loop of Python's own: uvloop forks, and children forked beside gRPC may crash.
        self.url = await asyncio.to_thread(asyncio.run, self._server.start())
        self.admin = redis.connect(self.url, connections=1)
        await self.admin.ping()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.admin.aclose()
        await asyncio.to_thread(asyncio.run, self._server.stop())
        self._home.remove()

    @asynccontextmanager
    async def killed(self) -> AsyncIterator[None]:
        """SIGKILL; it comes back with its data."""
        self._signal(signal.SIGKILL)
        await self.admin.aclose()
        await asyncio.to_thread(asyncio.run, self._server.stop())
        yield
        await self.__aenter__()

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """Its sockets are open and nobody answers."""
        self._signal(signal.SIGSTOP)
        yield
        self._signal(signal.SIGCONT)

    @asynccontextmanager
    async def full(self) -> AsyncIterator[None]:
        """It refuses what needs memory."""
        await self.admin.config_set("maxmemory", "1")
        yield
        await self.admin.config_set("maxmemory", "0")

    @asynccontextmanager
    async def read_only(self) -> AsyncIterator[None]:
        """A replica whose master is nowhere."""
        await self.admin.replicaof("127.0.0.1", "1")
        yield
        await self.admin.replicaof("NO", "ONE")

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """It asks for another password, of those who are connected too."""
        await self.admin.config_set("requirepass", PASSWORD)
        await self.admin.execute_command("AUTH", PASSWORD)
        await self.admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await self.admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        yield
        await self.admin.config_set("requirepass", "")

    @asynccontextmanager
    async def forbidding(self) -> AsyncIterator[None]:
        """Its access list lets nobody add to a stream."""
        await self.admin.execute_command("ACL", "SETUSER", "default", "-xadd")
        yield
        await self.admin.execute_command("ACL", "SETUSER", "default", "+xadd")

    @asynccontextmanager
    async def usurped(self) -> AsyncIterator[None]:
        """Somebody else uses our key."""
        await self.admin.set(STREAM, "mine")
        yield
        await self.admin.delete(STREAM)

    def _signal(self, number: signal.Signals) -> None:
        os.kill(int((self._server.home / "redis.pid").read_text()), number)


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
