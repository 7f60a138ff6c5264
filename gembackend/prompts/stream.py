"""The Redis Stream of hints. An entry names a chatroom that may have work; it decides nothing.

Redis may lose, repeat or reorder entries. Only commands of Redis 6.2 are used.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from gembackend.live.wire import FEED_CHANNEL, FINISHED_CHANNEL, encode_finished
from gembackend.plumbing.ids import parse_id

STREAM = "gembackend:hints"
GROUP = "workers"
EPOCH_KEY = "gembackend:epoch"
BLOCK_MILLISECONDS = 200
"""How long one read waits; a reader that is told to stop ends its read first, so this is kept short."""
FROM_THE_START = "0"


class GroupLost(ResponseError):
    """The stream or its consumer group is gone: Redis lost its data."""


@dataclass(frozen=True, slots=True)
class Hint:
    """One stream entry: its id, and the room it names (None when it names none and is to be dropped)."""

    entry_id: str
    chatroom_id: UUID | None


class Stream:
    """The commands on the stream, as one consumer of the group.

    `blocking` is a client of its own for reading, whose socket timeout is longer than BLOCK. Every method may raise
    what `plumbing.redis.OUTAGES` lists.
    """

    def __init__(self, client: Redis, blocking: Redis, consumer: str) -> None:
        self._client = client
        self._blocking = blocking
        self.consumer = consumer

    async def ensure_group(self) -> None:
        """Make the group, reading from the beginning, unless it is there."""
        try:
            await self._client.xgroup_create(STREAM, GROUP, FROM_THE_START, mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def read(self, count: int, after: str | None = None) -> list[Hint]:
        """Wait a moment for new hints; with `after`, this consumer's own pending ones behind that entry.

        Raises GroupLost.
        """
        try:
            answer: Any = await self._blocking.xreadgroup(
                GROUP,
                self.consumer,
                {STREAM: ">" if after is None else after},
                count=count,
                block=BLOCK_MILLISECONDS if after is None else None,
            )
        except ResponseError as error:
            raise _lost(error) from error
        return [_hint(entry) for _stream, entries in answer or () for entry in entries]

    async def stranded(self, idle_seconds: float, most: int) -> list[Hint]:
        """Take over entries that some consumer has held for so long; raises GroupLost."""
        try:
            answer: Any = await self._client.xautoclaim(
                STREAM, GROUP, self.consumer, int(idle_seconds * 1000), FROM_THE_START, count=most
            )
        except ResponseError as error:
            raise _lost(error) from error
        return [_hint(entry) for entry in answer[1] if entry[0] is not None]

    async def write(
        self,
        hints: Iterable[UUID] = (),
        done: Sequence[str] = (),
        finished: Sequence[UUID] = (),
        casts: Sequence[bytes] = (),
    ) -> None:
        """One round trip: add hints, acknowledge and delete entries, tell every process which prompts finished, and
        what listeners hear."""
        pipeline = self._client.pipeline(transaction=False)
        for chatroom_id in hints:
            pipeline.xadd(STREAM, {"chatroom": str(chatroom_id)})
        if done:
            pipeline.xack(STREAM, GROUP, *done)
            pipeline.xdel(STREAM, *done)
        if finished:
            pipeline.publish(FINISHED_CHANNEL, encode_finished(finished))
        for payload in casts:
            pipeline.publish(FEED_CHANNEL, payload)
        await pipeline.execute()

    async def epoch(self) -> str:
        """A word that changes when Redis has lost its data."""
        fresh = secrets.token_hex(8)
        if await self._client.set(EPOCH_KEY, fresh, nx=True):
            return fresh
        kept: Any = await self._client.get(EPOCH_KEY)
        return kept.decode() if kept else fresh

    async def bury_consumers(self, idle_seconds: float) -> int:
        """Remove consumers that hold nothing and have not read for so long; tells how many."""
        try:
            consumers = await self._client.xinfo_consumers(STREAM, GROUP)
        except ResponseError as error:
            raise _lost(error) from error
        buried = 0
        for consumer in consumers:
            if consumer["pending"] == 0 and consumer["idle"] > idle_seconds * 1000:
                await self._client.xgroup_delconsumer(STREAM, GROUP, consumer["name"])
                buried += 1
        return buried

    async def leave(self) -> bool:
        """Remove this consumer if it holds nothing, since removing it would drop what it holds; tells whether."""
        held = await self._client.xpending_range(STREAM, GROUP, "-", "+", 1, consumername=self.consumer)
        if held:
            return False
        await self._client.xgroup_delconsumer(STREAM, GROUP, self.consumer)
        return True


def _hint(entry: tuple[bytes, dict[bytes, bytes] | None]) -> Hint:
    entry_id, fields = entry
    named = (fields or {}).get(b"chatroom", b"")
    return Hint(entry_id.decode(), parse_id(named.decode("ascii", "replace")))


def _lost(error: ResponseError) -> Exception:
    return GroupLost(str(error)) if "NOGROUP" in str(error) else error
