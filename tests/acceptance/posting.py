"""Users who keep posting prompts, whatever the service answers."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from tests.acceptance.site import Site, User
from tests.processes import Process, until


class Posting:
    """Posts to a room each, in turn, as `run` goes on; what is refused is sent again with the same key a moment later.

    `told` are the prompts accepted, `refusals` the codes of every 503, `slowest` the longest a request took, and `lag`
    the longest that one took meanwhile for which nothing is done: that much is the machine's.
    """

    def __init__(self, process: Process, user: User, rooms: list[str]) -> None:
        self.told: list[str] = []
        self.refusals: list[str] = []
        self.slowest = self.lag = 0.0
        self._process = process
        self._user = user
        self._rooms = rooms
        self._enough = asyncio.Event()

    async def run(self) -> None:
        """Post until it is enough."""
        async with asyncio.TaskGroup() as posting:
            posting.create_task(self._keep_asking_for_nothing())
            for number in range(len(self._rooms)):
                posting.create_task(self._keep_posting(number))

    def enough(self) -> None:
        """Let `run` come to its end."""
        self._enough.set()

    async def accepted(self, more: int) -> None:
        """Wait until so many more are accepted."""
        goal = len(self.told) + more
        await self._reaches(lambda: len(self.told) >= goal, f"{more} more accepted")

    async def refused(self, more: int) -> None:
        """Wait until so many more are refused."""
        goal = len(self.refusals) + more
        await self._reaches(lambda: len(self.refusals) >= goal, f"{more} more refused")

    async def readiness(self, site: Site, status: int) -> None:
        """Wait until /readyz has this status."""

        async def so() -> bool:
            return (await site.get(self._process, "/readyz")).status == status

        await until(so, f"readiness {status}")

    async def _reaches(self, done: Callable[[], bool], what: str) -> None:
        async def there() -> bool:
            return done()

        await until(there, what)

    async def _keep_posting(self, number: int) -> None:
        turn = 0
        while not self._enough.is_set():
            text = f"room {number} text {turn}"
            begun = time.monotonic()
            key = text.replace(" ", "-")
            answer = await self._user.send(self._process, self._rooms[number], text, Idempotency_Key=key)
            self.slowest = max(self.slowest, time.monotonic() - begun)
            if answer.status == 202:
                self.told.append(answer.body["id"])
                turn += 1
            elif answer.status == 503:
                assert int(answer.headers["Retry-After"]) >= 1
                self.refusals.append(answer.code)
                await self._come_back_later()
            else:
                assert (answer.status, answer.code) == (429, "room_busy")

    async def _keep_asking_for_nothing(self) -> None:
        while not self._enough.is_set():
            begun = time.monotonic()
            assert (await self._user.call(self._process, "GET", "/livez")).status == 200
            self.lag = max(self.lag, time.monotonic() - begun)
            await self._come_back_later()

    async def _come_back_later(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await self._enough.wait()
