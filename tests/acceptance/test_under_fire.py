"""The promise as a whole: processes and Redis die under load, and every prompt is answered once and in order."""

import asyncio
import random
from collections import Counter

import pytest

from gembackend.embedded.gemini import Behaviour, Call
from tests.acceptance.accounting import account, finished_prompts, recovery
from tests.acceptance.breakable import Breakable
from tests.acceptance.site import Site
from tests.listeners import follow, misheard, stories
from tests.processes import PATIENCE, Process, until

LEASE = 2.0
ROOMS, EACH, HEARD = 20, 15, 6


async def test_everything_is_answered_once_and_in_order_while_processes_and_redis_die(
    shaky_site: Site, breakable: Breakable, capsys: pytest.CaptureFixture[str]
) -> None:
    site, dice, failures = shaky_site, random.Random(300), Counter[str]()

    def moody(call: Call) -> Behaviour:
        # No prompt fails more often than it may, given that it can also lose an attempt to each of the two deaths.
        failing = dice.random() < 0.1 and failures[call.prompt] < 2
        failures[call.prompt] += failing
        broken = {"status": "UNAVAILABLE", "break_after": dice.choice([None, 2])} if failing else {}
        return Behaviour(latency=dice.uniform(0.05, 0.15), pieces=6, pace=0.005, **broken)

    site.gemini.rule(moody)
    first, second = await site.start_many(2, PROMPT_LEASE_SECONDS=LEASE)
    user = await site.user(first)
    rooms = [await user.room(first) for _ in range(ROOMS)]
    told: list[str] = []
    followers = [
        asyncio.create_task(
            follow(room, user.token, lambda: EACH, lambda: dice.choice(alive(site)).url, lambda: dice.randrange(5, 40))
        )
        for room in rooms[:HEARD]
    ]
    recoveries: dict[str, float] = {}

    async def send(turns: range, *processes: Process) -> None:
        async def fill(number: int) -> None:
            for turn in turns:
                process = processes[(number + turn) % len(processes)]
                told.append(await user.accepted(process, rooms[number], f"room {number} text {turn}"))

        await asyncio.gather(*map(fill, range(ROOMS)))

    async def kill(victim: Process) -> None:
        async def at_work() -> bool:
            return await site.held_by(victim) >= 3

        await until(at_work, "the victim at work")
        await victim.kill()

    async def recover(what: str) -> None:
        recoveries[what] = await recovery(site, LEASE + 5)

    await send(range(0, 3), first, second)
    await kill(first)
    replacement, _, _ = await asyncio.gather(
        site.start(PROMPT_LEASE_SECONDS=LEASE), recover("kill -9"), send(range(3, 6), second)
    )
    await breakable.kill_redis()
    await send(range(6, 9), replacement, second)
    await breakable.start_redis()
    await recover("Redis killed")
    await send(range(9, 12), replacement, second)
    await breakable.empty_redis()
    await recover("FLUSHALL")
    await send(range(12, 15), replacement, second)
    await kill(second)
    await asyncio.gather(site.start(PROMPT_LEASE_SECONDS=LEASE), recover("kill -9 again"))
    await site.all_finished()

    result = await account(site, told)
    with capsys.disabled():
        print(f"\n{result}\n" + ", ".join(f"{what}: {took:.1f} s" for what, took in recoveries.items()))  # noqa: T201
    assert result.clean and result.answered == result.accepted == ROOMS * EACH
    await site.at_rest()
    for room, follower in zip(rooms, followers, strict=False):
        heard = stories(await asyncio.wait_for(follower, PATIENCE))
        prompts = await finished_prompts(site, room)
        assert len(heard) == len(prompts) == EACH
        assert misheard(heard, prompts) == []


def alive(site: Site) -> list[Process]:
    """The processes that run and are ready."""
    return [process for process in site.processes if process.running and process.url]
