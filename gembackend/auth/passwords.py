"""Password hashes: argon2id in a thread pool of its own, so that the event loop never waits for one."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import VerifyMismatchError

from gembackend.plumbing import metrics
from gembackend.plumbing.faults import Fault

PATIENCE_SECONDS = 2.0
"""How long a hash may wait for its turn before the client is told to come back."""
MAX_WAITING = 1000
MAX_THREADS = 8
"""More cores than this are not used: each hash under way takes memory_kib."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one argon2id hash costs; the default is OWASP's minimum, raise it as machines get faster."""

    memory_kib: int = 19_456
    passes: int = 2
    lanes: int = 1


class Passwords:
    """Hashes and checks passwords as they are given: nothing is trimmed, folded or cut.

    At most one hash a core runs at a time; the others wait in order, and raise Fault("busy") after
    PATIENCE_SECONDS or when too many wait already.
    """

    def __init__(self, cost: Cost) -> None:
        self._cost = cost
        self._hasher = PasswordHasher(cost.passes, cost.memory_kib, cost.lanes)
        threads = min(os.cpu_count() or 1, MAX_THREADS)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="passwords")
        self._slots = asyncio.Semaphore(threads)
        self._waiting = 0
        self._nobodys = ""

    async def start(self) -> None:
        """Make the hash that stands in for the one of a phone nobody has."""
        self._nobodys = await self.hash(os.urandom(16).hex())

    def stop(self) -> None:
        """Let the hashes under way end, and make no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """The password's hash, with its salt and cost."""
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether it is this password; None for a stored hash takes as long and is always wrong."""
        return await self._run(lambda: self._matches(stored or self._nobodys, password)) and stored is not None

    def outdated(self, stored: str) -> bool:
        """Whether a hash is cheaper to guess than those made now."""
        made = extract_parameters(stored)
        return made.memory_cost < self._cost.memory_kib or made.time_cost < self._cost.passes

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except VerifyMismatchError:
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        began = perf_counter()
        await self._take_slot()
        running = asyncio.get_running_loop().run_in_executor(self._pool, work)
        running.add_done_callback(lambda _: self._slots.release())
        # The thread cannot be stopped: the slot is free when it ends, also if nobody waits for it any more.
        result = await asyncio.shield(running)
        metrics.HASH_SECONDS.observe(perf_counter() - began)
        return result

    async def _take_slot(self) -> None:
        if self._waiting >= MAX_WAITING:
            raise _busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            raise _busy() from None
        finally:
            self._waiting -= 1


def _busy() -> Fault:
    metrics.HASHES_REFUSED.inc()
    return Fault("busy", "Too many people are logging in at this moment; try again shortly.", retry_after=2)
