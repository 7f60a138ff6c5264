"""The chaos run behind `ops/chaos`: load, faults at random, and a verdict."""

import argparse
import asyncio
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import aiohttp
import uvloop

from ops.chaos_bystanders import Bystanders
from ops.chaos_faults import Scene, in_random_order
from ops.chaos_verdict import Recovery, verdict
from tests.acceptance.accounting import account, finished_prompts, recovery
from tests.acceptance.breakable import Breakable
from tests.acceptance.site import Site, User, open_site
from tests.listeners import Heard, follow, misheard, stories

T = TypeVar("T")

PATIENCE = 90.0
"""Seconds after which what does not go on is taken for stuck."""
TURNS, CALM_SECONDS, RUDE_SECONDS, BROKEN_SECONDS = 4, 4.0, 6.0, 30.0
"""A round measures so often without rude clients and then beside them, and then breaks things beside them. The turns
are short, so that whatever else the machine has to do is in both."""
PAUSE, MEASURED_PAUSE = 0.5, 1.5
"""How many seconds a room pauses at most between two prompts; measuring is done with idle time left on two cores."""
HEARD = 5
"""How many of the rooms have a listener."""
REQUEST_SECONDS = 5.0
"""How long a client waits for an answer before it asks another process."""


class Chaos:
    """One run: rooms that ask, a hand that breaks things, and a count of both."""

    def __init__(self, site: Site, servers: Breakable, options: argparse.Namespace) -> None:
        self._site = site
        self._options = options
        self._dice = random.Random(options.seed)
        self._faults = in_random_order(self._dice)
        self._scene = Scene(site, servers, self._dice, lease=options.lease)
        self._told: list[str] = []
        self._bystanders = Bystanders(site, self._scene, self._told, rude=options.rude, seed=options.seed)
        self._pause_seconds = PAUSE
        self._ends: dict[str, int] = {}
        self._recoveries: list[Recovery] = []
        self._begun = time.monotonic()
        self.over = asyncio.Event()

    async def run(self) -> int:
        """Break things until the time is over or `over` is set, let everything finish, and say what happened."""
        await self._scene.start(self._options.processes)
        user = await self._site.user(first := self._scene.processes[0])
        rooms = [await user.room(first) for _ in range(self._options.rooms)]
        followers = {
            room: asyncio.create_task(self._follow(user, number, room)) for number, room in enumerate(rooms[:HEARD])
        }
        async with self._bystanders.present():
            asyncio.get_running_loop().call_later(60 * self._options.minutes, self.over.set)
            async with asyncio.TaskGroup() as asking:
                for number, room in enumerate(rooms):
                    asking.create_task(self._ask(user, number, room))
                while not self.over.is_set():
                    await self._measure()
                    await self._break_things()
        self._say("everything mended, the last prompts are waited for")
        await self._or_trouble(self._site.all_finished(PATIENCE))
        await self._or_trouble(self._site.at_rest(PATIENCE))
        misheard = await self._misheard(followers)
        result = replace(await account(self._site, self._told), misheard=misheard)
        text, status = verdict(result, self._recoveries, self._bystanders.burden(), self._scene.troubles)
        print(text)
        return status

    async def _measure(self) -> None:
        """See by turns how others fare without rude clients and beside them; these are left at what they do."""
        self._pause_seconds = MEASURED_PAUSE
        for _ in range(TURNS):
            for rude, settling, seconds in ((False, 3.0, CALM_SECONDS), (True, 1.0, RUDE_SECONDS)):
                self._bystanders.let(rude=rude)
                await self._pause(settling)
                async with self._bystanders.measured(rude=rude):
                    await self._pause(seconds)
        self._pause_seconds = PAUSE

    async def _break_things(self) -> None:
        """Let one fault after another happen for a while."""
        until = time.monotonic() + BROKEN_SECONDS
        while time.monotonic() < until:
            await self._pause(self._dice.uniform(1.0, 3.0))
            if self.over.is_set():
                return
            faults = next(self._faults)
            await asyncio.gather(*(fault.happen(self._scene) for fault in faults))
            took = await self._or_trouble(recovery(self._site, PATIENCE)) or PATIENCE
            await self._scene.mended()
            self._recoveries.append(Recovery(" and ".join(fault.name for fault in faults), took))
            self._say(f"{self._recoveries[-1].fault}; every room went on within {took:.1f} s")

    async def _ask(self, user: User, number: int, room: str) -> None:
        """Send one prompt after another, each to one process after another until it is accepted."""
        dice = random.Random(number)
        turn = 0
        while not self.over.is_set():
            process, text = dice.choice(self._scene.processes), f"room {number} text {turn}"
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with asyncio.timeout(REQUEST_SECONDS):
                    answer = await user.send(process, room, text, Idempotency_Key=text.replace(" ", "-"))
                if answer.status == 202:
                    self._told.append(answer.body["id"])
                    turn += 1
                elif answer.status not in (429, 503):
                    self._scene.troubles.append(f"A prompt was answered with {answer.status}: {answer.body}")
            await self._pause(dice.uniform(0.0, self._pause_seconds))

    async def _follow(self, user: User, number: int, room: str) -> list[Heard]:
        """Listen to a room, now here and now there, until every prompt of it has been heard to its end."""
        dice = random.Random(-number)
        return await follow(
            room,
            user.token,
            lambda: self._ends.get(room),
            lambda: dice.choice(self._scene.processes).url,
            lambda: dice.randrange(5, 60),
        )

    async def _misheard(self, followers: dict[str, asyncio.Task[list[Heard]]]) -> int:
        """How many prompts the listeners were not told of once and whole, now that all have ended."""
        wrong = 0
        for room, follower in followers.items():
            prompts = await finished_prompts(self._site, room)
            self._ends[room] = len(prompts)
            done, _ = await asyncio.wait([follower], timeout=PATIENCE)
            follower.cancel()
            wrong += len(misheard(stories(follower.result()), prompts)) if done else len(prompts)
        return wrong

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.over.wait()

    async def _or_trouble(self, wait: Awaitable[T]) -> T | None:
        """Wait; what does not come in time is told in the verdict."""
        try:
            return await wait
        except AssertionError as error:
            self._scene.troubles.append(f"{error}.")
            return None

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._begun:6.1f} s] {len(self._told):6,} accepted; {text}", flush=True)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; `ops/chaos --help` describes them."""
    parser = argparse.ArgumentParser(prog="ops/chaos", add_help=False)
    parser.add_argument("--minutes", type=_number(0.01, 10_000), default=1.0)
    parser.add_argument("--processes", type=int, choices=range(1, 17), default=2, metavar="N")
    parser.add_argument("--rooms", type=int, choices=range(1, 1001), default=20, metavar="N")
    parser.add_argument("--lease", type=_number(1, 3600), default=3.0)
    parser.add_argument("--rude", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    return parser.parse_args(arguments)


def _number(low: float, high: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be from {low:g} to {high:g}")
        return value

    return number


async def _main(options: argparse.Namespace) -> int:
    print(f"Breaking things for {options.minutes:g} min, --seed {options.seed}", flush=True)
    servers = Breakable()
    try:
        await servers.heal()
        async with open_site(await servers.create_database(), servers.redis_url, calls_kept=0) as site:
            chaos = Chaos(site, servers, options)
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, chaos.over.set)
            return await chaos.run()
    finally:
        servers.close()


if __name__ == "__main__":
    sys.exit(uvloop.run(_main(parse(sys.argv[1:]))))
