"""The webhooks of the Stripe stand-in: each event is posted, signed, until somebody takes it."""

import asyncio
import json
import random
import time
from collections.abc import Callable

import aiohttp

from gembackend.embedded.stripe_state import shown
from gembackend.embedded.stripe_wire import Object, signature

SECONDS = 10.0
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0


class Deliveries:
    """Posts events to `url`. `taken` is called with the id of an event that was answered 2xx.

    For tests: without `automatic` nothing is posted but by `deliver`; every event is posted `copies` times, each after
    up to `jitter` seconds, so that the order is another; one for which `lost` says so never gets through. `under_way`
    has the posts that are not done with.
    """

    def __init__(self, url: str | None, taken: Callable[[str], None]) -> None:
        self.url = url
        self.secret = ""
        self.automatic = True
        self.copies = 1
        self.jitter = 0.0
        self.lost: Callable[[Object], bool] = lambda _: False
        self._taken = taken
        self._session: aiohttp.ClientSession | None = None
        self.under_way: set[asyncio.Task[None]] = set()

    def start(self, secret: str) -> None:
        """Make the HTTP client; events are signed with the secret."""
        self.secret = secret
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS))

    async def stop(self) -> None:
        """Break off what is under way."""
        for task in self.under_way:
            task.cancel()
        await asyncio.gather(*self.under_way, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def add(self, event: Object) -> None:
        """Post an event, again and again if need be."""
        if not self.automatic or self.url is None or self.lost(event):
            return
        for _ in range(self.copies):
            task = asyncio.create_task(self._insist(event), name=f"deliver-{event['id']}")
            self.under_way.add(task)
            task.add_done_callback(self.under_way.discard)

    async def deliver(self, event: Object) -> int:
        """Post an event once; the status of the answer, 0 when there was none."""
        assert self._session is not None and self.url is not None
        raw = json.dumps(shown(event)).encode()
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature(raw, self.secret, time.time()),
        }
        try:
            async with self._session.post(self.url, data=raw, headers=headers) as response:
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError):
            return 0
        if 200 <= status < 300:
            self._taken(event["id"])
        return status

    async def _insist(self, event: Object) -> None:
        await asyncio.sleep(random.uniform(0, self.jitter))  # noqa: S311
        pause = FIRST_PAUSE
        while not 200 <= await self.deliver(event) < 300:
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)
