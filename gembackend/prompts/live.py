"""Who waits for which prompt, and the ways by which its end becomes known."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from uuid import UUID

from redis.asyncio import Redis

from gembackend.actors import Actor, Periodic
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.ids import parse_id
from gembackend.plumbing.postgres import Database
from gembackend.plumbing.redis import OUTAGES
from gembackend.prompts import upkeep_store as store
from gembackend.prompts.stream import FINISHED_CHANNEL

POLL_SECONDS = 1.0
PAUSE_SECONDS = 0.25
LISTEN_SECONDS = 0.2


class Finish:
    """The end of one prompt, as one waiter sees it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def came(self) -> None:
        """The prompt has ended, or this process is about to."""
        self._event.set()

    async def within(self, seconds: float) -> bool:
        """Wait for the end at most so long; tells whether it came."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        return True


class Live:
    """The register of waiters. The committer reports what this process stored, the two actors below all else."""

    def __init__(self) -> None:
        self._waiting: defaultdict[UUID, set[Finish]] = defaultdict(set)
        self._closed = False

    @contextmanager
    def watch(self, prompt_id: UUID) -> Iterator[Finish]:
        """Watch a prompt until the block ends; it need not exist yet."""
        finish = Finish()
        if self._closed:
            finish.came()
        self._waiting[prompt_id].add(finish)
        try:
            yield finish
        finally:
            waiters = self._waiting[prompt_id]
            waiters.discard(finish)
            if not waiters:
                del self._waiting[prompt_id]

    def watched(self) -> list[UUID]:
        """The prompts that somebody waits for."""
        return list(self._waiting)

    def finished(self, prompt_ids: Iterable[UUID]) -> None:
        """These prompts have ended."""
        for prompt_id in prompt_ids:
            for finish in self._waiting.get(prompt_id, ()):
                finish.came()

    def close(self) -> None:
        """Let every waiter go, now and from now on: this process is shutting down."""
        self._closed = True
        self.finished(self.watched())


class FinishListener(Actor):
    """Hears through Redis what other processes have finished or cancelled, and lets go of it here."""

    def __init__(self, client: Redis, live: Live, abandon: Callable[[UUID], object]) -> None:
        super().__init__("finish-listener")
        self._client = client
        self._live = live
        self._abandon = abandon

    async def run(self) -> None:
        """Listen until told to stop, subscribing again after every outage."""
        while not self.stopping.is_set():
            try:
                async with self._client.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(FINISHED_CHANNEL)
                    while not self.stopping.is_set():
                        message = await channel.get_message(timeout=LISTEN_SECONDS)
                        if message is not None:
                            self._take(_ids(message["data"]))
            except OUTAGES:
                await self.pause(PAUSE_SECONDS)

    def _take(self, prompt_ids: list[UUID]) -> None:
        self._live.finished(prompt_ids)
        for prompt_id in prompt_ids:
            self._abandon(prompt_id)


class FinishPoll(Periodic):
    """Asks the database about everything that is waited for: what a lost notice is made up by."""

    def __init__(self, database: Database, live: Live) -> None:
        super().__init__("finish-poll", POLL_SECONDS, expected=(Fault,))
        self._database = database
        self._live = live

    async def run_once(self) -> int:
        """Ask once; tells how many of the watched prompts had ended."""
        watched = self._live.watched()
        if not watched:
            return 0
        async with self._database.connection() as connection:
            ended = await store.finished_among(connection, watched)
        self._live.finished(ended)
        return len(ended)


def _ids(data: bytes) -> list[UUID]:
    words = data.decode("ascii", "replace").split()
    return [prompt_id for word in words if (prompt_id := parse_id(word)) is not None]
