"""The faults of a chaos run, and the scene in which they happen."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from gembackend.embedded.gemini import Behaviour, Call
from ops.chaos_probe import PROBE
from ops.chaos_rude import RUDE_END, hostile
from tests.acceptance.breakable import Breakable
from tests.acceptance.site import Site
from tests.processes import Process
from tests.sick_redis import Outage, SickRedis

LARGE = ("room 0 ", "room 10 ")
"""How prompts begin that are answered at length beside the rude ones; the first of these rooms has a listener."""
LARGE_CHARS = 65_536
TOGETHER = 0.3
"""How often two faults come at the same time."""


class Scene:
    """What there is to be broken: processes, servers, and Gemini, which fails a tenth of its calls in good times."""

    def __init__(self, site: Site, servers: Breakable, dice: random.Random, *, lease: float) -> None:
        self.servers = servers
        self.lease = lease
        self.processes: list[Process] = []
        self.gemini_says: str | None = None
        self.large_replies = False
        """Whether Gemini answers some rooms with as much as is kept of a reply, and that hostile."""
        self.troubles: list[str] = []
        """What went wrong beside the prompts, a sentence each."""
        self._site = site
        self._dice = dice
        self._moods = random.Random(0)
        self._mending: list[asyncio.Task[None]] = []
        site.gemini.rule(self._mood)

    async def start(self, count: int) -> None:
        """Start the processes."""
        self.processes = list(await asyncio.gather(*(self._process() for _ in range(count))))

    def victim(self) -> int:
        """The place of some process."""
        return self._dice.randrange(len(self.processes))

    async def while_it_lasts(self, low: float, high: float) -> None:
        """Let the fault go on for a while, in seconds."""
        await asyncio.sleep(self._dice.uniform(low, high))

    async def replace(self, place: int) -> None:
        """Put a new process in the place of one that has ended."""
        replacement = await self._process()
        self.processes[place].lines.clear()
        self.processes[place] = replacement

    def mend_later(self, work: Coroutine[Any, Any, None]) -> None:
        """Mend something while it is measured how work goes on without it."""
        self._mending.append(asyncio.create_task(work))

    async def mended(self) -> None:
        """Wait for everything that is being mended."""
        await asyncio.gather(*self._mending)
        self._mending.clear()

    async def _process(self) -> Process:
        # A session lasts for as long as any run.
        return await self._site.start(PROMPT_LEASE_SECONDS=self.lease, JWT_TTL_SECONDS=10_000_000)

    def _mood(self, call: Call) -> Behaviour:
        if call.prompt.startswith(PROBE):
            return Behaviour(latency=0.05, status=self.gemini_says)
        failing = "UNAVAILABLE" if self._moods.random() < 0.1 else None
        large = (self.large_replies and call.prompt.startswith(LARGE)) or call.prompt.endswith(RUDE_END)
        text = f"“{call.prompt}” {hostile(self._moods, LARGE_CHARS)}" if large else None
        return Behaviour(latency=self._moods.uniform(0.05, 0.15), status=self.gemini_says or failing, text=text)


async def _kill(scene: Scene) -> None:
    place = scene.victim()
    await scene.processes[place].kill()
    scene.mend_later(scene.replace(place))


async def _kill_all(scene: Scene) -> None:
    for process in scene.processes:
        await process.kill()
    for place in range(len(scene.processes)):
        scene.mend_later(scene.replace(place))


async def _drain(scene: Scene) -> None:
    place = scene.victim()
    scene.processes[place].terminate()

    async def mend() -> None:
        status = await scene.processes[place].ended(30)
        if status != 0:
            scene.troubles.append(f"A process that was asked to stop ended with status {status}.")
        await scene.replace(place)

    scene.mend_later(mend())


async def _freeze(scene: Scene) -> None:
    process = scene.processes[scene.victim()]
    await process.freeze()

    async def mend() -> None:
        await scene.while_it_lasts(scene.lease + 1, scene.lease + 3)
        process.thaw()

    scene.mend_later(mend())


async def _kill_redis(scene: Scene) -> None:
    await scene.servers.kill_redis()
    await scene.while_it_lasts(0, 3)
    await scene.servers.start_redis()


def _redis(sickness: Outage) -> Callable[[Scene], Awaitable[None]]:
    """It does not serve for a while, and work goes on without it."""

    async def happen(scene: Scene) -> None:
        lasting = sickness(scene.servers.sick_redis)
        await lasting.__aenter__()

        async def mend() -> None:
            await scene.while_it_lasts(2, 8)
            await lasting.__aexit__(None, None, None)

        scene.mend_later(mend())

    return happen


async def _empty_redis(scene: Scene) -> None:
    await scene.servers.empty_redis()


async def _stop_postgres(scene: Scene) -> None:
    await scene.servers.stop_postgres()
    await scene.while_it_lasts(0, 10)
    await scene.servers.start_postgres()


async def _freeze_postgres(scene: Scene) -> None:
    await scene.servers.freeze_postgres()
    await scene.while_it_lasts(1, 10)
    scene.servers.thaw_postgres()


def _gemini_says(status: str) -> Callable[[Scene], Awaitable[None]]:
    async def happen(scene: Scene) -> None:
        scene.gemini_says = status
        await scene.while_it_lasts(1, 5)
        scene.gemini_says = None

    return happen


@dataclass(frozen=True, slots=True)
class Fault:
    """A name for people, what is broken, and what happens until the moment from which on work is to go on."""

    name: str
    part: str
    happen: Callable[[Scene], Awaitable[None]]


FAULTS = (
    Fault("process killed (-9)", "process", _kill),
    Fault("every process killed (-9)", "process", _kill_all),
    Fault("process asked to stop", "process", _drain),
    Fault("process frozen past its lease", "process", _freeze),
    Fault("Redis killed", "redis", _kill_redis),
    Fault("Redis emptied", "redis", _empty_redis),
    Fault("Redis frozen", "redis", _redis(SickRedis.frozen)),
    Fault("Redis full", "redis", _redis(SickRedis.full)),
    Fault("Redis read-only", "redis", _redis(SickRedis.read_only)),
    Fault("PostgreSQL stopped", "postgres", _stop_postgres),
    Fault("PostgreSQL frozen", "postgres", _freeze_postgres),
    Fault("Gemini down", "gemini", _gemini_says("UNAVAILABLE")),
    Fault("Gemini too busy (429)", "gemini", _gemini_says("RESOURCE_EXHAUSTED")),
)


def in_random_order(dice: random.Random) -> Iterator[tuple[Fault, ...]]:
    """Faults without end: each once before any comes again, now and then together with one of another part."""
    while True:
        for fault in dice.sample(FAULTS, len(FAULTS)):
            others = [other for other in FAULTS if other.part != fault.part]
            yield (fault, dice.choice(others)) if dice.random() < TOGETHER else (fault,)
