"""Who waits for which prompt, and the ways by which its end becomes known."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from uuid import UUID

from gembackend.actors import Periodic
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database
from gembackend.plumbing.waiting import within
from gembackend.prompts import upkeep_store as store

POLL_SECONDS = 1.0


class Finish:
    """The end of one prompt, as one waiter sees it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def came(self) -> None:
        """The prompt has ended, or this process is about to."""
        self._event.set()

    async def within(self, seconds: float) -> bool:
        """Wait for the end at most so long; tells whether it came."""
        return await within(self._event, seconds)


class Live:
    """The register of waiters. The committer reports what this process stored, the listener and the poll the rest."""

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

    async def teardown(self) -> None:
        """At the end of a drain all that could be learnt has been: let go of whoever still waits."""
        if self.stopping.is_set():
            self._live.close()
