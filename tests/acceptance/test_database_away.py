"""PostgreSQL goes away under load and comes back."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from gembackend.embedded.gemini import Behaviour
from tests.acceptance.accounting import account
from tests.acceptance.breakable import Breakable
from tests.acceptance.posting import Posting
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
    posting = Posting(process, user, rooms)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(posting.run())
        await posting.accepted(50)
        began = time.monotonic()
        await begin()
        await posting.readiness(site, 503)
        meanwhile.set()
        await process.logged("commit_waits")
        await posting.refused(2 * ROOMS)
        await process.logged("turn_failed", actor="heartbeat")

        async def longer_than_a_lease() -> bool:
            return time.monotonic() - began >= LEASE + 1

        await until(longer_than_a_lease, "an outage longer than a lease")
        await end()
        await posting.readiness(site, 200)
        afterwards.set()
        await posting.accepted(20)
        posting.enough()

    assert process.running and not process.events("actor_crashed")
    assert set(posting.refusals) == {"database_unavailable"}
    assert posting.slowest < 3 + posting.lag, "no request waits for longer than that"
    await site.all_finished()

    async def given_back() -> bool:
        return await site.metric(process, "database_connections_in_use") == 0

    await until(given_back, "every connection given back")
    result = await account(site, told + posting.told)
    assert result.clean and result.answered == result.accepted
    await site.at_rest()
