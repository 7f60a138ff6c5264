"""Two processes while Redis is away, frozen, full and read-only: nobody waits for it, and nothing is lost."""

import asyncio

import pytest

from gembackend.embedded.gemini import Behaviour
from tests.acceptance.accounting import account
from tests.acceptance.breakable import Breakable
from tests.acceptance.site import Site
from tests.processes import Process, until
from tests.sick_redis import OUTAGES, Outage, SickRedis

ROOMS, EACH = 10, 3


@pytest.mark.parametrize("outage", [SickRedis.killed, SickRedis.frozen, SickRedis.full, SickRedis.read_only])
async def test_both_processes_answer_in_order_and_stay_ready_though_degraded_while_redis_does_not_serve(
    outage: Outage, shaky_site: Site, breakable: Breakable
) -> None:
    site, told = shaky_site, list[str]()
    site.gemini.default = Behaviour(latency=0.05)
    processes = await site.start_many(2)
    user = await site.user(processes[0])
    rooms = [await user.room(processes[0]) for _ in range(ROOMS)]

    async def fill(number: int) -> None:
        for turn in range(EACH):
            process = processes[(number + turn) % 2]
            told.append(await user.accepted(process, rooms[number], f"room {number} text {turn}"))

    async with outage(breakable.sick_redis):
        await asyncio.gather(*map(fill, range(ROOMS)))
        await site.all_finished()
        for process in processes:
            await until(lambda process=process: _degraded(site, process, OUTAGES[outage]), "degraded")  # type: ignore[misc]
            assert await site.metric(process, "hints_unavailable") == 1
    for process in processes:
        await until(lambda process=process: _well(site, process), "well again")  # type: ignore[misc]
    told.append(await user.accepted(processes[1], rooms[0], f"room 0 text {EACH}"))
    await site.all_finished()
    result = await account(site, told)
    assert result.clean and result.answered == result.accepted == ROOMS * EACH + 1
    await site.at_rest()
    assert not [line for process in processes for line in process.events("actor_crashed")]


async def _degraded(site: Site, process: Process, reason: str) -> bool:
    """Whether a process says so of itself; it is never anything but ready."""
    answer = await site.get(process, "/readyz")
    assert answer.status == 200, answer.body
    return answer.body["status"] == "degraded" and answer.body["checks"]["redis"] == {"ok": False, "detail": reason}


async def _well(site: Site, process: Process) -> bool:
    return bool((await site.get(process, "/readyz")).body["status"] == "ok")
