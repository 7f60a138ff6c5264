"""A prompt that kills whatever process works on it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from gembackend.embedded.gemini import Behaviour, Call
from tests.acceptance.site import Site
from tests.processes import Process

ATTEMPTS = 3
INNOCENT = 8


@contextlib.asynccontextmanager
async def replaced_when_it_dies(site: Site, process: Process, **environment: object) -> AsyncIterator[None]:
    """A new process takes the place of this one when it dies, and of that one, and so on."""

    async def replace_for_ever() -> None:
        latest = process
        while True:
            await latest.ended(60)
            latest = await site.start(**environment)

    async with asyncio.TaskGroup() as keepers:
        keeper = keepers.create_task(replace_for_ever())
        yield
        keeper.cancel()


async def test_a_prompt_that_kills_its_process_is_given_up_and_takes_no_other_along(site: Site) -> None:
    companies: list[set[str]] = []
    strikes: list[asyncio.Task[None]] = []
    all_sent, harmless = asyncio.Event(), asyncio.Event()
    """The poison waits for the one, and the innocent are not done before the other: they are there when it strikes."""

    def company_of(call: Call) -> set[str]:
        return {
            other.prompt
            for other in site.gemini.calls
            if other.api_key == call.api_key and other.finished is None and other is not call
        }

    async def strike(call: Call) -> None:
        await all_sent.wait()
        if len(companies) < ATTEMPTS - 1:
            await site.gemini.wait_until(lambda: len(company_of(call)) == INNOCENT, 20)
        companies.append(company_of(call))
        if len(companies) == ATTEMPTS - 1:
            harmless.set()
        await site.process_behind(call.api_key).kill()

    def choose(call: Call) -> Behaviour:
        if call.prompt == "poison":
            strikes.append(asyncio.create_task(strike(call)))
            return Behaviour(hang=True)
        return Behaviour(hold=harmless, latency=0.05)

    site.gemini.rule(choose)
    environment = {"PROMPT_LEASE_SECONDS": 1, "PROMPT_MAX_ATTEMPTS": ATTEMPTS, "BASIC_DAILY_PROMPTS": 100}
    first = await site.start(**environment)
    user = await site.user(first, "Basic")
    for number in range(INNOCENT):
        room = await user.room(first)
        await user.accepted(first, room, f"innocent {number}")
        await user.accepted(first, room, f"behind innocent {number}")
    room = await user.room(first)
    async with replaced_when_it_dies(site, first, **environment):
        poison = await user.accepted(first, room, "poison")
        await user.accepted(first, room, "behind the poison")
        all_sent.set()
        await site.all_finished(40)

    fallen = await site.fetch("SELECT id::text, attempts, error_code FROM prompts WHERE status <> 'answered'")
    assert [tuple(row) for row in fallen] == [(poison, ATTEMPTS, "worker_lost")]
    assert len(companies) == ATTEMPTS
    assert not any(prompt.startswith("innocent") for prompt in companies[-1]), "suspects are tried one at a time"
    assert await site.value("SELECT max(attempts) FROM prompts") <= ATTEMPTS
    assert await site.value("SELECT used FROM prompt_usage") == 2 * INNOCENT + 1
    await asyncio.gather(*strikes)
