"""The life cycle of actors and their supervisor, in every order."""

import asyncio
import random

import pytest

from gembackend.actors import Actor, Budget, Mailbox, Periodic, State, Supervisor, each_alone

QUICK = Budget(restarts=3, seconds=30, first_wait=0.001, longest_wait=0.002)


class Echo(Actor):
    """Collects numbers; a negative one crashes it."""

    def __init__(self, name: str = "echo", journal: list[str] | None = None) -> None:
        super().__init__(name)
        self.mailbox: Mailbox[int] = Mailbox(1000)
        self.seen: list[int] = []
        self.lives = 0
        self.torn_down = 0
        self.journal = journal if journal is not None else []
        self.changed = asyncio.Event()

    async def setup(self) -> None:
        self.lives += 1
        self.journal.append(f"{self.name} starts")
        self.changed.set()

    def wind_down(self) -> None:
        self.mailbox.close()

    async def run(self) -> None:
        while batch := await self.mailbox.drain(1):
            self.changed.set()
            if batch[0] < 0:
                raise ValueError(batch[0])
            self.seen += batch

    async def teardown(self) -> None:
        self.torn_down += 1
        self.journal.append(f"{self.name} stops")

    async def until_lives(self, lives: int) -> None:
        async with asyncio.timeout(5):
            while self.lives < lives:
                self.changed.clear()
                await self.changed.wait()


class Stubborn(Actor):
    """Never ends by itself."""

    async def run(self) -> None:
        await asyncio.Event().wait()


class Broken(Actor):
    """Cannot be set up."""

    async def setup(self) -> None:
        raise RuntimeError("no")

    async def run(self) -> None:
        await self.stopping.wait()


async def test_started_returns_once_setup_is_done() -> None:
    actor = Echo()
    actor.start()
    await actor.started()
    assert (actor.state, actor.lives, actor.health()) == (State.RUNNING, 1, None)
    await actor.stop()


async def test_stop_works_through_the_mailbox_first() -> None:
    actor = Echo()
    actor.start()
    await actor.started()
    for number in range(100):
        actor.mailbox.tell(number)
    await actor.stop()
    assert actor.seen == list(range(100))
    assert (actor.state, actor.torn_down) == (State.STOPPED, 1)


async def test_stop_before_start_and_stop_twice_are_harmless() -> None:
    actor = Echo()
    await actor.stop()
    actor.start()
    await actor.stop()
    assert (actor.state, actor.lives) == (State.STOPPED, 0)
    with pytest.raises(RuntimeError):
        await actor.started()


async def test_start_twice_gives_one_life() -> None:
    actor = Echo()
    actor.start()
    actor.start()
    await actor.started()
    assert actor.lives == 1
    await asyncio.gather(actor.stop(), actor.stop())
    assert actor.torn_down == 1


async def test_an_actor_that_does_not_end_is_cancelled_after_its_grace() -> None:
    actor = Stubborn("stubborn")
    actor.start()
    await actor.started()
    await actor.stop(grace=0.01)
    assert actor.state is State.STOPPED


async def test_started_tells_when_setup_failed() -> None:
    actor = Broken("broken")
    actor.start()
    with pytest.raises(RuntimeError, match="broken is crashed"):
        await actor.started()
    await actor.stop()


async def test_any_order_of_calls_ends_stopped() -> None:
    dice = random.Random(7)
    for _ in range(200):
        actor = Echo()
        calls = [dice.choice(["start", "stop", "tell", "yield"]) for _ in range(12)]
        for call in calls:
            if call == "start":
                actor.start()
            elif call == "stop":
                await actor.stop(grace=0.5)
            elif call == "tell" and not actor.mailbox.closed:
                actor.mailbox.tell(1)
            else:
                await asyncio.sleep(0)
        await actor.stop(grace=0.5)
        assert actor.state is State.STOPPED
        assert actor.torn_down == actor.lives


async def test_a_crashed_actor_is_restarted_and_keeps_its_mailbox() -> None:
    actor = Echo()
    supervisor = Supervisor([actor], QUICK)
    await supervisor.start()
    for number in (1, -1, 2):
        actor.mailbox.tell(number)
    await actor.until_lives(2)
    await supervisor.stop(asyncio.get_running_loop().time() + 5)
    assert actor.seen == [1, 2]
    assert not supervisor.failed.is_set()


async def test_a_crash_leaves_the_others_alone() -> None:
    crashing, calm = Echo("crashing"), Echo("calm")
    supervisor = Supervisor([crashing, calm], QUICK)
    await supervisor.start()
    crashing.mailbox.tell(-1)
    await crashing.until_lives(2)
    assert calm.lives == 1
    await supervisor.stop(asyncio.get_running_loop().time() + 5)


async def test_an_actor_that_cannot_be_asked_to_end_is_cancelled_and_the_others_are_stopped() -> None:
    class Stubborn(Echo):
        def wind_down(self) -> None:
            raise ValueError

    first, stubborn, last = Echo("first"), Stubborn("stubborn"), Echo("last")
    supervisor = Supervisor([first, stubborn, last], QUICK)
    await supervisor.start()
    await supervisor.stop(asyncio.get_running_loop().time() + 0.1)
    assert [actor.state for actor in (first, stubborn, last)] == [State.STOPPED] * 3


async def test_what_cannot_be_ended_takes_nothing_else_along() -> None:
    taken: list[str] = []

    async def works() -> None:
        taken.append("works")

    async def fails() -> None:
        taken.append("fails")
        raise OSError

    await each_alone(works, fails, fails, works)
    assert taken == ["works", "fails", "fails", "works"]


async def test_the_supervisor_gives_up_past_the_budget() -> None:
    actor = Echo()
    supervisor = Supervisor([actor], QUICK)
    await supervisor.start()
    for _ in range(4):
        actor.mailbox.tell(-1)
    async with asyncio.timeout(5):
        await supervisor.failed.wait()
    assert supervisor.failure is not None
    assert "echo crashed 4 times" in supervisor.failure
    assert supervisor.health() == {"echo": "crashed"}
    await supervisor.stop(asyncio.get_running_loop().time() + 5)


async def test_actors_start_in_order_and_stop_in_the_opposite_order() -> None:
    journal: list[str] = []
    supervisor = Supervisor([Echo(name, journal) for name in "abc"], QUICK)
    await supervisor.start()
    deadline = asyncio.get_running_loop().time() + 5
    await asyncio.gather(supervisor.stop(deadline), supervisor.stop(deadline))
    assert journal == ["a starts", "b starts", "c starts", "c stops", "b stops", "a stops"]


async def test_stopping_while_a_restart_is_due_ends_it() -> None:
    actor = Echo()
    supervisor = Supervisor([actor], Budget(restarts=3, seconds=30, first_wait=60, longest_wait=60))
    await supervisor.start()
    actor.mailbox.tell(-1)
    await actor.ended()
    await supervisor.stop(asyncio.get_running_loop().time() + 5)
    assert (actor.state, actor.lives) == (State.STOPPED, 1)


class Ticking(Periodic):
    """Fails on the turns it is told to."""

    def __init__(self, troubles: list[Exception | None]) -> None:
        super().__init__("ticking", 0.001, expected=(ConnectionError,))
        self.troubles = troubles
        self.turns = 0
        self.enough = asyncio.Event()

    async def run_once(self) -> int:
        self.turns += 1
        if self.turns > len(self.troubles):
            self.enough.set()
        elif (trouble := self.troubles[self.turns - 1]) is not None:
            raise trouble
        return self.turns


async def test_an_expected_failure_does_not_end_the_turns() -> None:
    actor = Ticking([ConnectionError(), None, ConnectionError()])
    actor.start()
    async with asyncio.timeout(5):
        await actor.enough.wait()
    assert actor.trouble is None
    await actor.stop()


async def test_an_unexpected_failure_crashes_the_actor() -> None:
    actor = Ticking([ValueError()])
    actor.start()
    async with asyncio.timeout(5):
        await actor.ended()
    assert actor.state is State.CRASHED
    await actor.stop()
