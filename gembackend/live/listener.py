"""Hears through Redis what other processes tell: which prompts have finished, and what rooms' listeners hear."""

from collections.abc import Callable
from uuid import UUID

from redis.asyncio import Redis

from gembackend.actors import Actor
from gembackend.live.feed import Feed
from gembackend.live.waiters import Waiters
from gembackend.live.wire import FEED_CHANNEL, FINISHED_CHANNEL, decode_finished
from gembackend.plumbing.redis import OUTAGES
from gembackend.plumbing.redis_state import RedisState

PAUSE_SECONDS = 0.25
LISTEN_SECONDS = 0.2


class Listener(Actor):
    """Passes on what it hears. A prompt that another process has finished or cancelled is let go of by `abandon`."""

    def __init__(
        self, client: Redis, state: RedisState, waiters: Waiters, feed: Feed, abandon: Callable[[UUID], object]
    ) -> None:
        super().__init__("listener")
        self._client = client
        self._state = state
        self._waiters = waiters
        self._feed = feed
        self._abandon = abandon

    async def run(self) -> None:
        """Listen until told to stop, subscribing again after every outage."""
        while not self.stopping.is_set():
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(FINISHED_CHANNEL, FEED_CHANNEL)
                    while not self.stopping.is_set():
                        message = await channel.get_message(timeout=LISTEN_SECONDS)
                        self._state.well("listening")
                        if message is not None:
                            self._take(message["channel"].decode(), message["data"])
            except OUTAGES as error:
                self._state.failed("listening", error)
                await self.pause(PAUSE_SECONDS)

    def _take(self, channel: str, data: bytes) -> None:
        if channel == FEED_CHANNEL:
            self._feed.take(data)
            return
        prompt_ids = decode_finished(data)
        self._waiters.finished(prompt_ids)
        for prompt_id in prompt_ids:
            self._abandon(prompt_id)
