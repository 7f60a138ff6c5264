"""Every command that the service sends to Redis, tried on keys of their own.

The keys lie under the service's own prefix, so that an ACL is asked what the service will ask of it. The channels are
the service's: what is published there names nothing, and is left by everyone who hears it.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from gembackend.auth import limits
from gembackend.checks.report import Failed, why_away
from gembackend.live.wire import FEED_CHANNEL, FINISHED_CHANNEL
from gembackend.plumbing import redis
from gembackend.prompts.stream import GROUP

HEAR_SECONDS = 2.0
"""How long a message may take through Redis."""
REPLICA = "is a read-only replica: REDIS_URL must name the primary"

_CHANNELS = "the channels gembackend:*"
_KEYS = "the keys gembackend:*"


class Trial:
    """The service's commands, one after the other, on keys that are removed at the end."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._token = secrets.token_hex(8)
        self._stream, self._word, self._limit = (
            f"gembackend:check:{self._token}:{kind}" for kind in ("stream", "word", "limit")
        )
        self._denied: dict[str, None] = {}
        self._entry: Any = "0-1"

    async def run(self) -> list[str]:
        """What the ACL forbids; raises Failed when a command fails for another reason."""
        try:
            for name, command in self._commands().items():
                await self._attempt(name, command)
        finally:
            await self._remove()
        return list(self._denied)

    def _commands(self) -> dict[str, Callable[[], Awaitable[object]]]:
        client, stream, me = self._client, self._stream, "check"
        return {
            "PING": client.ping,
            "XADD": self._write,
            "XGROUP": lambda: client.xgroup_create(stream, GROUP, "0", mkstream=True),
            "XREADGROUP": self._read,
            "XPENDING": lambda: client.xpending_range(stream, GROUP, "-", "+", 1, consumername=me),
            "XAUTOCLAIM": lambda: client.xautoclaim(stream, GROUP, me, 0, "0", count=1),
            "XINFO": lambda: client.xinfo_consumers(stream, GROUP),
            "XACK": lambda: client.xack(stream, GROUP, self._entry),
            "XDEL": lambda: client.xdel(stream, self._entry),
            "SET": lambda: client.set(self._word, self._token, nx=True, ex=60),
            "GET": lambda: client.get(self._word),
            "EVALSHA": lambda: limits.try_script(client, self._limit),
            "PUBLISH": self._publish,
            "SUBSCRIBE": self._hear,
        }

    async def _attempt(self, name: str, command: Callable[[], Awaitable[object]]) -> None:
        try:
            await command()
        except NoPermissionError as error:
            self._denied[_forbidden(name, str(error))] = None
        except ReadOnlyError as error:
            raise Failed(REPLICA) from error
        except OutOfMemoryError as error:
            raise Failed(f"is full, {name} is refused (OOM): give it more maxmemory") from error
        except ResponseError as error:
            if "permissions" in str(error) or "can't run this command" in str(error):  # of the script
                self._denied[f"what {name} runs"] = None
            elif not self._denied:  # else it may well be for want of what was not allowed before
                raise Failed(f"{name} is refused ({words(error)})") from error
        except redis.OUTAGES as error:
            raise Failed(f"{name} is not answered ({why_away(error)})") from error

    async def _write(self) -> None:
        self._entry = await self._client.xadd(self._stream, {"chatroom": ""})

    async def _read(self) -> None:
        got: Any = await self._client.xreadgroup(GROUP, "check", {self._stream: ">"}, count=1, block=1)
        if not got and not self._denied:
            raise Failed("XREADGROUP does not give what XADD wrote")

    async def _hear(self) -> None:
        """Subscribe as the listener does, and hear what is published; a refusal is the first thing to be read."""
        async with self._client.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(FINISHED_CHANNEL, FEED_CHANNEL)
            await channel.get_message(timeout=HEAR_SECONDS)
            if self._denied.keys() & {"PUBLISH", _CHANNELS}:
                return
            await self._publish()
            try:
                async with asyncio.timeout(HEAR_SECONDS):
                    heard: Any = None
                    while heard is None or heard["data"] != self._token.encode():
                        heard = await channel.get_message(timeout=HEAR_SECONDS)
            except TimeoutError:
                raise Failed("what is published on its channels is not heard") from None

    async def _publish(self) -> None:
        await self._client.publish(FINISHED_CHANNEL, self._token)

    async def _remove(self) -> None:
        """Remove the keys, or, where that is forbidden, let them expire."""
        keys = (self._stream, self._word, self._limit)
        with suppress(*redis.OUTAGES):
            try:
                await self._client.delete(*keys)
            except NoPermissionError:
                for key in keys:
                    await self._client.pexpire(key, 1)


def _forbidden(name: str, text: str) -> str:
    """What a refusal is about: the command, or what it is used on."""
    if " run the " in text:
        return name
    return _CHANNELS if "channel" in text else _KEYS


def words(error: RedisError) -> str:
    """The server's own words, on one line."""
    told = " ".join(f"{error.status_code or ''} {error}".split())
    return told if len(told) <= 120 else f"{told[:119]}…"
