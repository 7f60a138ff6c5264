"""Connections are made in the background, handed out in turn, and never more of them than there may be."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gembackend.plumbing import connections
from gembackend.plumbing.connections import Connections, NoneFree

LONG = 20.0


class Wire:
    """Stands in for a connection."""

    def __init__(self) -> None:
        self.cut = False
        self.in_transaction = False

    def is_closed(self) -> bool:
        return self.cut

    def is_in_transaction(self) -> bool:
        return self.in_transaction

    def terminate(self) -> None:
        self.cut = True

    async def close(self) -> None:
        self.cut = True


class Server:
    """Takes connections when the test says so. `doors` are the attempts under way."""

    def __init__(self) -> None:
        self.doors: list[asyncio.Future[Wire]] = []
        self.attempts = 0
        self.wires: list[Wire] = []
        self._news = asyncio.Event()

    async def connect(self) -> Any:
        door: asyncio.Future[Wire] = asyncio.get_running_loop().create_future()
        self.doors.append(door)
        self.attempts += 1
        self._news.set()
        return await door

    async def knocked(self, times: int) -> None:
        """Wait until so many attempts have been begun in all."""
        while self.attempts < times:
            self._news.clear()
            await self._news.wait()

    def admit(self) -> Wire:
        """Let the oldest attempt in."""
        self.wires.append(Wire())
        self.doors.pop(0).set_result(self.wires[-1])
        return self.wires[-1]

    def refuse(self, error: Exception) -> None:
        self.doors.pop(0).set_exception(error)


@pytest.fixture
def server() -> Server:
    return Server()


def waits(pool: Connections, seconds: float = LONG) -> "asyncio.Task[Any]":
    return asyncio.create_task(pool.take(seconds))


async def settle(done: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    async with asyncio.timeout(LONG):
        while not done():
            await asyncio.sleep(0)


async def test_an_attempt_outlives_those_who_waited_for_it(server: Server) -> None:
    pool = Connections(server.connect, 2)
    with pytest.raises(NoneFree, match=r"within 0\.01 s"):
        await pool.take(0.01)
    assert server.attempts == 1
    wire = server.admit()
    await settle(lambda: pool.usage() == (0, 1))
    assert await pool.take(LONG) is wire
    assert server.attempts == 1
    await pool.close(0)


async def test_who_waits_gets_the_first_that_comes_free_in_order_of_arrival(server: Server) -> None:
    pool = Connections(server.connect, 2)
    first = waits(pool)
    await server.knocked(1)
    wire = server.admit()
    assert await first is wire
    second, third = waits(pool), waits(pool)
    await server.knocked(2)
    pool.give_back(await first)
    assert await second is wire and not third.done()
    server.admit()
    assert await third is not wire
    assert (server.attempts, pool.usage()) == (2, (2, 2))
    await pool.close(0)


async def test_there_are_never_more_than_there_may_be(server: Server) -> None:
    pool = Connections(server.connect, 3)
    most = 0

    async def work() -> None:
        nonlocal most
        held = await pool.take(LONG)
        most = max(most, pool.usage()[1])
        await asyncio.sleep(0)
        pool.give_back(held)

    tasks = [asyncio.create_task(work()) for _ in range(10)]
    await server.knocked(3)
    for _ in range(3):
        server.admit()
    await asyncio.gather(*tasks)
    assert (most, server.attempts, pool.usage()) == (3, 3, (0, 3))
    await pool.close(0)


async def test_after_a_failure_one_knocks_at_a_time_and_all_who_wait_are_told(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PAUSE_SECONDS", 0.0)
    heard: list[Exception | None] = []
    pool = Connections(server.connect, 3, noticed=heard.append)
    first = waits(pool)
    await server.knocked(1)
    server.admit()
    pool.give_back(await first)
    server.wires[0].terminate()
    tasks = [waits(pool) for _ in range(5)]
    await server.knocked(4)
    refusal = OSError("refused")
    for _ in range(3):
        server.refuse(refusal)
    assert await asyncio.gather(*tasks, return_exceptions=True) == [refusal] * 5
    tasks = [waits(pool) for _ in range(5)]
    await server.knocked(5)
    await asyncio.sleep(0)
    assert len(server.doors) == 1, "one attempt at a time while it fails"
    server.admit()
    await server.knocked(7)
    assert heard == [refusal, refusal, refusal, None]
    await pool.close(0)
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_while_some_are_at_work_a_failure_ends_nobodys_wait(server: Server) -> None:
    pool = Connections(server.connect, 2)
    first = waits(pool)
    await server.knocked(1)
    wire = server.admit()
    held = await first
    second = waits(pool)
    await server.knocked(2)
    server.refuse(OSError("too many connections"))
    await settle(lambda: pool.trouble is not None)
    assert not second.done()
    pool.give_back(held)
    assert await second is wire
    await pool.close(0)


async def test_what_is_cut_or_in_a_transaction_is_not_lent_again(server: Server) -> None:
    pool = Connections(server.connect, 1)
    for number, spoil in enumerate([Wire.terminate, lambda wire: setattr(wire, "in_transaction", True)], 1):
        task = waits(pool)
        await server.knocked(number)
        wire = server.admit()
        assert await task is wire
        spoil(wire)
        pool.give_back(wire)
        assert wire.cut and pool.usage() == (0, 0)
    await pool.close(0)


async def test_renewing_lends_none_of_the_present_ones_again(server: Server) -> None:
    pool = Connections(server.connect, 2)
    tasks = [waits(pool), waits(pool)]
    await server.knocked(2)
    idle, lent = server.admit(), server.admit()
    await asyncio.gather(*tasks)
    pool.give_back(idle)  # type: ignore[arg-type]
    pool.renew()
    assert idle.cut and not lent.cut
    pool.give_back(lent)  # type: ignore[arg-type]
    assert lent.cut and pool.usage() == (0, 0)
    await pool.close(0)


async def test_who_leaves_as_it_comes_loses_none(server: Server) -> None:
    pool = Connections(server.connect, 1)
    first = waits(pool)
    await server.knocked(1)
    wire = server.admit()
    held = await first
    second = waits(pool)
    await asyncio.sleep(0)
    pool.give_back(held)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert second.cancelled()
    assert await pool.take(LONG) is wire
    await pool.close(0)


async def test_the_longest_idle_goes_and_the_last_one_stays(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", -1.0)
    pool = Connections(server.connect, 2)
    tasks = [waits(pool), waits(pool)]
    await server.knocked(2)
    one, other = server.admit(), server.admit()
    await asyncio.gather(*tasks)
    pool.give_back(one)  # type: ignore[arg-type]
    assert not one.cut, "the last one stays"
    pool.give_back(other)  # type: ignore[arg-type]
    assert (one.cut, other.cut, pool.usage()) == (True, False, (0, 1))
    await pool.close(0)


async def test_closing_ends_attempts_and_waits_and_cuts_what_is_not_back(server: Server) -> None:
    pool = Connections(server.connect, 2)
    first = waits(pool)
    await server.knocked(1)
    wire = server.admit()
    await first
    second = waits(pool)
    await server.knocked(2)
    await pool.close(0.01)
    assert wire.cut and server.doors[0].cancelled()
    with pytest.raises(NoneFree):
        await second
    with pytest.raises(NoneFree):
        await pool.take(LONG)
