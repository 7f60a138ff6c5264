"""A part of a connection pool for work that may take long, so that it takes no more, for one person and in all."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Connection, Database

WAIT_SECONDS = 1.0
RETRY_AFTER_SECONDS = 1


class Lender(Protocol):
    """What hands out connections, each for one piece of work: a pool, or somebody's share of it."""

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        """A connection; raises Fault when there is none to be had."""


class Share:
    """A third of a pool, and of that a half for one person; whoever asks waits for a turn, but not for long.

    What does not fit waits outside the pool, where it is in nobody's way.
    """

    def __init__(self, database: Database, work: str) -> None:
        """`work` is what it is for, in the plural."""
        self.size = max(1, database.size // 3)
        self.personal = max(1, self.size // 2)
        self._database = database
        self._work = work
        self._turns = asyncio.Semaphore(self.size)
        self._people: dict[UUID, asyncio.Semaphore] = {}
        self._asking: dict[UUID, int] = {}

    @property
    def people(self) -> int:
        """How many people have work under way, or ask for it."""
        return len(self._asking)

    def of(self, user_id: UUID, *, wait: float = WAIT_SECONDS) -> Lender:
        """A person's part of it, in which pieces of work wait for a turn so many seconds."""
        return _Part(self, user_id, wait)

    @asynccontextmanager
    async def connection(self, user_id: UUID, wait: float) -> AsyncIterator[Connection]:
        """A connection for one piece of a person's work.

        Raises Fault("rate_limited") when the person has too much of it under way, Fault("busy") when all together
        have, and what the pool raises.
        """
        async with self._own(user_id, wait):
            await _turn(self._turns, wait, self._busy)
            try:
                async with self._database.connection() as held:
                    yield held
            finally:
                self._turns.release()

    @asynccontextmanager
    async def _own(self, user_id: UUID, wait: float) -> AsyncIterator[None]:
        """One of the person's own turns; who has none under way and asks for none is forgotten."""
        own = self._people.setdefault(user_id, asyncio.Semaphore(self.personal))
        self._asking[user_id] = self._asking.get(user_id, 0) + 1
        try:
            await _turn(own, wait, self._too_much)
            try:
                yield
            finally:
                own.release()
        finally:
            self._asking[user_id] -= 1
            if not self._asking[user_id]:
                del self._asking[user_id], self._people[user_id]

    def _busy(self) -> Fault:
        text = f"Too many {self._work} are under way; try again shortly."
        return Fault("busy", text, retry_after=RETRY_AFTER_SECONDS)

    def _too_much(self) -> Fault:
        text = f"Too many of your {self._work} are under way; try again when they are through."
        return Fault("rate_limited", text, retry_after=RETRY_AFTER_SECONDS)


@dataclass(frozen=True, slots=True)
class _Part:
    """One person's part of a share."""

    share: Share
    user_id: UUID
    wait: float

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        """A connection for one piece of the person's work."""
        return self.share.connection(self.user_id, self.wait)


async def _turn(turns: asyncio.Semaphore, seconds: float, refusal: Callable[[], Fault]) -> None:
    """Wait for a turn; raises the refusal when none comes."""
    try:
        async with asyncio.timeout(seconds):
            await turns.acquire()
    except TimeoutError as error:
        raise refusal() from error
