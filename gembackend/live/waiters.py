"""Who waits for the end of which prompt, whichever process it ends in."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from uuid import UUID

from gembackend.plumbing.waiting import within


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


class Waiters:
    """The register of who waits. The announcer tells what this process stored, the listener and the poll the rest."""

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
