"""The life cycle of an actor: start, started, stop, in any order and any number of times."""

import asyncio
from abc import ABC, abstractmethod
from enum import Enum

from gembackend.plumbing import logs
from gembackend.plumbing.waiting import within

log = logs.logger(__name__)


class State(Enum):
    """Where an actor is in its life."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    CRASHED = "crashed"


class Actor(ABC):
    """One task with one loop. Subclasses say what it does in `run`, and how it is asked to end in `wind_down`.

    `start` returns at once, `started` waits for `setup` to have succeeded. A crash leaves the
    actor CRASHED and keeps its mailbox; `start` gives it another life.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = State.NEW
        self.crash: BaseException | None = None
        self.stopping = asyncio.Event()
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def setup(self) -> None:
        """Make ready; runs at the beginning of every life, before `started` returns."""

    @abstractmethod
    async def run(self) -> None:
        """The loop: returns when `stopping` is set, or when the mailbox has been closed and emptied."""

    def wind_down(self) -> None:
        """Make `run` return soon, for example by closing the mailbox; `stopping` has been set already."""

    async def teardown(self) -> None:
        """Give back what `setup` took; runs at the end of every life."""

    def start(self) -> None:
        """Begin a life; harmless while one is going on, or once the actor has been told to stop."""
        if self.stopping.is_set() or self.state in (State.STARTING, State.RUNNING):
            return
        self.state, self.crash = State.STARTING, None
        self._task = asyncio.create_task(self._life(), name=self.name)

    async def started(self) -> None:
        """Wait until the actor runs; raises RuntimeError when it crashed or stopped instead."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.state not in (State.NEW, State.STARTING))
        if self.state is not State.RUNNING:
            raise RuntimeError(f"{self.name} is {self.state.value}") from self.crash

    async def ended(self) -> None:
        """Wait until the actor has crashed or stopped."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.state in (State.CRASHED, State.STOPPED))

    async def stop(self, grace: float = 5.0) -> None:
        """Ask the loop to end, give it `grace` seconds, then cancel it; harmless at any time."""
        self.stopping.set()
        try:
            self.wind_down()
        except Exception:  # the loop may end all the same, and is cancelled if it does not
            log.exception("actor_wind_down_failed", actor=self.name)
        task = self._task
        if task is None or task.done():
            await self._enter(State.STOPPED)
            return
        if self.state is State.RUNNING:
            await self._enter(State.STOPPING)
        _, late = await asyncio.wait([task], timeout=max(0.0, grace))
        if late:
            log.warning("actor_cancelled", actor=self.name, grace_seconds=grace)
            task.cancel()
            await asyncio.wait([task])

    async def pause(self, seconds: float) -> bool:
        """Wait for a time, or less when the actor is to stop; tells whether it is to stop."""
        return await within(self.stopping, seconds)

    def health(self) -> str | None:
        """None when well, else a reason a person can read."""
        return None if self.state is State.RUNNING else self.state.value

    async def _life(self) -> None:
        try:
            await self.setup()
            if not self.stopping.is_set():
                await self._enter(State.RUNNING)
                await self.run()
            if not self.stopping.is_set():
                raise RuntimeError(f"{self.name} ended by itself")
        except asyncio.CancelledError:
            await self._finish(State.STOPPED)
            raise
        except Exception as error:
            self.crash = error
            log.exception("actor_crashed", actor=self.name)
            await self._finish(State.CRASHED)
        else:
            await self._finish(State.STOPPED)

    async def _finish(self, state: State) -> None:
        try:
            await self.teardown()
        except Exception:
            log.exception("actor_teardown_failed", actor=self.name)
        await self._enter(state)

    async def _enter(self, state: State) -> None:
        async with self._changed:
            self.state = state
            self._changed.notify_all()


class Periodic(Actor):
    """An actor that does one thing again and again; a subclass says what in `run_once`.

    Exceptions of the `expected` types (an outage, say) are logged and the next turn comes as
    usual; any other crashes the actor, and its supervisor decides.
    """

    def __init__(self, name: str, interval: float, expected: tuple[type[Exception], ...] = ()) -> None:
        super().__init__(name)
        self.interval = interval
        self.expected = expected
        self.trouble: str | None = None

    @abstractmethod
    async def run_once(self) -> object:
        """Do it once and return what was done."""

    async def run(self) -> None:
        """A turn at once, and then one every `interval` seconds."""
        while True:
            try:
                await self.run_once()
                self.trouble = None
            except self.expected as error:
                if self.trouble is None:
                    log.warning("turn_failed", actor=self.name, error=type(error).__name__)
                self.trouble = type(error).__name__
            if await self.pause(self.interval):
                return
