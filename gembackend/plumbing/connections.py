"""The connections to one database: made in the background, handed out in turn."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

import asyncpg

if TYPE_CHECKING:
    Raw: TypeAlias = asyncpg.Connection[asyncpg.Record]

PAUSE_SECONDS = 0.2
"""Between an attempt that failed and the next one."""
IDLE_SECONDS = 300.0
"""How long a connection may lie idle, unless it is the last one."""


class NoneFree(Exception):
    """No connection came free, and none could be made, in the time one was waited for; the text says why, if known."""


class Connections:
    """At most `size` connections. Who takes one waits for the first that comes free or is made, in order of arrival.

    An attempt to connect belongs to nobody: it goes on when those who waited for it have gone, so that a database that
    takes longer to reach than anybody waits is reached all the same. After an attempt has failed only one at a time is
    made, a pause apart, as long as somebody waits.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable["Raw"]],
        size: int,
        *,
        noticed: Callable[[Exception | None], None] = lambda _: None,
    ) -> None:
        """`connect` raises what it likes, and ends by itself.

        `noticed` hears of every failure after the first success, and of the success that ends them.
        """
        self.trouble: Exception | None = None
        self._connect = connect
        self._size = size
        self._noticed = noticed
        self._waiting: OrderedDict[asyncio.Future[Raw], None] = OrderedDict()
        self._attempts: set[asyncio.Task[None]] = set()
        self._idle: list[tuple[Raw, float]] = []
        self._lent: set[Raw] = set()
        self._unwanted: set[Raw] = set()
        self._abandoned = 0
        self._failed_at = 0.0
        self._well: bool | None = None
        self._closed = False
        self._all_back = asyncio.Event()

    def usage(self) -> tuple[int, int]:
        """How many connections are in use, and how many are open."""
        return len(self._lent), len(self._lent) + sum(not one.is_closed() for one, _ in self._idle)

    async def take(self, seconds: float) -> "Raw":
        """A connection, to be given back; raises what connecting raised, or NoneFree after so many seconds."""
        if self._closed:
            raise NoneFree("the connections are closed")
        while self._idle:
            connection, _ = self._idle.pop()
            if not connection.is_closed():
                self._lent.add(connection)
                return connection
            connection.terminate()
        waiter: asyncio.Future[Raw] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = None
        self._grow()
        try:
            async with asyncio.timeout(seconds):
                return await waiter
        except BaseException as error:
            self._waiting.pop(waiter, None)
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.give_back(waiter.result())  # it came in the very moment of leaving
            if isinstance(error, TimeoutError):
                raise NoneFree(self.trouble or f"no connection within {seconds:g} s") from self.trouble
            raise

    def give_back(self, connection: "Raw", *, busy_seconds: float = 0.0) -> None:
        """Let the next one have it. A connection in doubt is to be terminated first.

        The server may be busy with it for so long yet, without us: its place is not given away before.
        """
        self._lent.discard(connection)
        if busy_seconds:
            self._abandoned += 1
            asyncio.get_running_loop().call_later(busy_seconds, self._given_up)
        if connection in self._unwanted:
            self._unwanted.discard(connection)
            connection.terminate()
        if not self._lent:
            self._all_back.set()
        if connection.is_closed() or self._closed or connection.is_in_transaction():
            connection.terminate()
            self._grow()
        else:
            self._hand(connection)

    def renew(self) -> None:
        """End every connection there is, those that are lent once they are back."""
        self._unwanted |= self._lent
        idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.terminate()

    async def close(self, seconds: float) -> None:
        """Close every connection; what is not back in time, or does not answer, is cut."""
        self._closed = True
        attempts = list(self._attempts)
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
        self._fail(NoneFree("the connections are closed"))
        idle, self._idle = self._idle, []
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(one.close() for one, _ in idle), return_exceptions=True)
                if self._lent:
                    self._all_back.clear()
                    await self._all_back.wait()
        except TimeoutError:
            for connection in (*self._lent, *(one for one, _ in idle)):
                connection.terminate()

    def _grow(self) -> None:
        """Begin as many attempts as are wanted and allowed."""
        if self._closed or not self._waiting:
            return
        wanted = min(len(self._waiting), 1 if self.trouble else self._size)
        while len(self._attempts) < min(wanted, self._size - len(self._lent) - self._abandoned):
            self._attempts.add(asyncio.create_task(self._attempt(), name="database-connect"))

    def _given_up(self) -> None:
        """The server has let go of what we left it with."""
        self._abandoned -= 1
        self._grow()

    async def _attempt(self) -> None:
        try:
            await asyncio.sleep(max(0.0, self._failed_at + PAUSE_SECONDS - monotonic()) if self.trouble else 0.0)
            connection = await self._connect()
        except Exception as error:
            self._done()
            self._failed_at = monotonic()
            self.trouble = error
            if self._well is not None:
                self._well = False
                self._noticed(error)
            if not self._lent and not self._attempts:
                self._fail(error)
            self._grow()
        else:
            self._done()
            if self._well is False:
                self._noticed(None)
            self.trouble, self._well = None, True
            self._hand(connection)
            self._grow()

    def _done(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._attempts.discard(task)

    def _hand(self, connection: "Raw") -> None:
        """Give it to whoever has waited longest, or lay it down; the one that has been idle for too long goes."""
        while self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            if not waiter.done():
                self._lent.add(connection)
                waiter.set_result(connection)
                return
        now = monotonic()
        self._idle.append((connection, now))
        if len(self._idle) > 1 and now - self._idle[0][1] > IDLE_SECONDS:
            self._idle.pop(0)[0].terminate()

    def _fail(self, error: Exception) -> None:
        while self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            if not waiter.done():
                waiter.set_exception(error)
