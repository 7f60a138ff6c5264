"""PostgreSQL goes away under load and comes back."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from gembackend.embedded.gemini import Behaviour
from tests.acceptance.accounting import account
from tests.acceptance.breakable import Breakable
from tests.acceptance.site import Site
from tests.processes import until

LEASE = 2
ROOMS = 8


async def test_nothing_accepted_is_lost_when_the_database_is_stopped_and_started_again(
    shaky_site: Site, breakable: Breakable
) -> None:
    await outage(shaky_site, breakable.stop_postgres, breakable.start_postgres)


async def test_nothing_accepted_is_lost_when_the_database_stands_still_and_goes_on(
    shaky_site: Site, breakable: Breakable
) -> None:
    async def thaw() -> None:
        breakable.thaw_postgres()

    await outage(shaky_site, breakable.freeze_postgres, thaw)


async def outage(site: Site, begin: Callable[[], Awaitable[None]], end: Callable[[], Awaitable[None]]) -> None:
    """Keep posting while the database is away for longer than a lease; one attempt ends meanwhile, one afterwards."""
    meanwhile, afterwards = asyncio.Event(), asyncio.Event()
    held = {"meanwhile 0": Behaviour(hold=meanwhile), "afterwards 0": Behaviour(hold=afterwards)}
    site.gemini.rule(lambda call: held.get(call.prompt))
    process = await site.start(PROMPT_LEASE_SECONDS=LEASE)
    user = await site.user(process)
    rooms = [await user.room(process) for _ in range(ROOMS)]
    told = [await user.accepted(process, await user.room(process), text) for text in held]
    enough = asyncio.Event()
    slowest = 0.0
    refusals: list[str] = []

    async def keep_posting(number: int) -> None:
        nonlocal slowest
        turn = 0
        while not enough.is_set():
            text = f"room {number} text {turn}"
            begun = time.monotonic()
            answer = await user.send(process, rooms[number], text, Idempotency_Key=text.replace(" ", "-"))
            slowest = max(slowest, time.monotonic() - begun)
            if answer.status == 202:
                told.append(answer.body["id"])
                turn += 1
            elif answer.status == 503:
                assert int(answer.headers["Retry-After"]) >= 1
                refusals.append(answer.code)
                await come_back_later()
            else:
                assert (answer.status, answer.code) == (429, "room_busy")

    async def come_back_later() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await enough.wait()

    async def reaches(count: Callable[[], int], goal: int) -> None:
        async def there() -> bool:
            return count() >= goal

        await until(there, f"{goal} of them")

    async def readiness_is(status: int) -> bool:
        return (await site.get(process, "/readyz")).status == status

    async with asyncio.TaskGroup() as posting:
        for number in range(ROOMS):
            posting.create_task(keep_posting(number))
        await reaches(lambda: len(told), 50)
        began = time.monotonic()
        await begin()
        await until(lambda: readiness_is(503), "not ready", 3)
        meanwhile.set()
        await process.logged("commit_waits")
        await reaches(lambda: len(refusals), 2 * ROOMS)
        await process.logged("turn_failed", actor="heartbeat")
        await reaches(lambda: int(time.monotonic() - began), LEASE + 1)
        await end()
        await until(lambda: readiness_is(200), "ready again", 5)
        afterwards.set()
        before = len(told)
        await reaches(lambda: len(told), before + 20)
        enough.set()

    assert process.running and not process.events("actor_crashed")
    assert set(refusals) == {"database_unavailable"}
    assert slowest < 3, "no request waits for longer than that"
    await site.all_finished()

    async def given_back() -> bool:
        return await site.metric(process, "database_connections_in_use") == 0

    await until(given_back, "every connection given back")
    result = await account(site, told)
    assert result.clean and result.answered == result.accepted
    await site.at_rest()
