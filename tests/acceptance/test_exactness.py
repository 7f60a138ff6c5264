"""Numbers that hold however many requests come at once, over whichever process."""

import asyncio
from collections import Counter

from tests.acceptance.site import Site


async def test_sixty_parallel_posts_over_two_processes_with_five_left_accept_five(site: Site) -> None:
    processes = await site.start_many(2)
    user = await site.user(processes[0], "Basic")
    rooms = [await user.room(processes[0]) for _ in range(6)]
    answers = await asyncio.gather(*(user.send(processes[n % 2], rooms[n // 2 % 6], f"text {n}") for n in range(60)))
    assert Counter(answer.status for answer in answers) == {202: 5, 429: 55}
    refused = [answer for answer in answers if answer.status == 429]
    assert {answer.code for answer in refused} == {"daily_limit_reached"}
    assert all(0 < int(answer.headers["Retry-After"]) <= 24 * 60 * 60 for answer in refused)
    assert await site.value("SELECT used FROM prompt_usage") == 5
    assert await site.value("SELECT count(*) FROM prompts") == 5


async def test_fifty_parallel_posts_with_one_idempotency_key_over_two_processes_make_one_prompt(site: Site) -> None:
    processes = await site.start_many(2)
    user = await site.user(processes[0], "Basic")
    room = await user.room(processes[1])
    answers = await asyncio.gather(
        *(user.send(processes[n % 2], room, "once", Idempotency_Key="the-key") for n in range(50))
    )
    assert {answer.status for answer in answers} == {202}
    assert len({answer.body["id"] for answer in answers}) == 1
    other = await user.send(processes[0], room, "something else", Idempotency_Key="the-key")
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    await site.all_finished()
    assert site.gemini.arrived == 1
    assert await site.value("SELECT used FROM prompt_usage") == 1
