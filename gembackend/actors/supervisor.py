"""Keeps actors alive: restarts one at a time, gives up on the process when restarts do not help."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from gembackend.actors.actor import Actor, State
from gembackend.plumbing import logs, metrics

log = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Budget:
    """How many restarts in how many seconds an actor may have, and how long to wait before one (doubling)."""

    restarts: int = 5
    seconds: float = 30.0
    first_wait: float = 0.1
    longest_wait: float = 5.0


class Supervisor:
    """Starts actors in order, restarts one that crashes, and stops all in the opposite order.

    When an actor crashes more often than its budget allows, `failed` is set and stays set: the
    process is expected to drain and exit non-zero, so that its orchestrator takes over.
    """

    def __init__(self, actors: Sequence[Actor], budget: Budget | None = None) -> None:
        self.actors = tuple(actors)
        self.budget = budget or Budget()
        self.failed = asyncio.Event()
        self.failure: str | None = None
        self._watchers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start every actor after the one before it has started; raises RuntimeError when one cannot."""
        for actor in self.actors:
            actor.start()
            await actor.started()
            self._watchers.append(asyncio.create_task(self._watch(actor), name=f"watch-{actor.name}"))

    async def stop(self, deadline: float) -> None:
        """Stop all actors, last started first, by `deadline` (event loop time); harmless to repeat."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        self._watchers.clear()
        loop = asyncio.get_running_loop()
        for actor in reversed(self.actors):
            await actor.stop(deadline - loop.time())

    def health(self) -> dict[str, str | None]:
        """Every actor's name, with None when it is well or else a reason."""
        return {actor.name: actor.health() for actor in self.actors}

    async def _watch(self, actor: Actor) -> None:
        loop = asyncio.get_running_loop()
        crashes: deque[float] = deque()
        while True:
            await actor.ended()
            if actor.state is State.STOPPED:
                return
            now = loop.time()
            crashes.append(now)
            while now - crashes[0] > self.budget.seconds:
                crashes.popleft()
            if len(crashes) > self.budget.restarts:
                self.failure = f"{actor.name} crashed {len(crashes)} times in {self.budget.seconds:g} s"
                log.critical("supervisor_gave_up", actor=actor.name, crashes=len(crashes))
                self.failed.set()
                return
            wait = min(self.budget.longest_wait, self.budget.first_wait * 2.0 ** (len(crashes) - 1))
            log.warning("actor_restarting", actor=actor.name, wait_seconds=wait)
            metrics.ACTOR_RESTARTS.labels(actor.name).inc()
            if await actor.pause(wait):
                return
            actor.start()
