"""Prompts that are not taken because too many wait."""

import asyncio

from gembackend.embedded.gemini import Behaviour
from tests.acceptance.site import Site
from tests.processes import Process, until


async def metric_becomes(site: Site, process: Process, name: str, value: float) -> None:
    """Wait until a metric has a value; what is measured is told at most once a second."""

    async def there() -> bool:
        return await site.metric(process, name) == value

    await until(there, f"{name} {value:g}")


async def test_a_full_room_is_a_429_and_a_full_service_a_503_until_there_is_room_again(site: Site) -> None:
    answer = asyncio.Event()
    site.gemini.default = Behaviour(hold=answer)
    process = await site.start(PROMPT_ROOM_LIMIT=2, PROMPT_BACKLOG_LIMIT=3)
    user = await site.user(process)
    room, other = await user.room(process), await user.room(process)
    for _ in range(2):
        await user.accepted(process, room, "hi")
    busy = await user.send(process, room, "hi")
    assert (busy.status, busy.code) == (429, "room_busy") and int(busy.headers["Retry-After"]) >= 1
    await user.accepted(process, other, "hi")

    await metric_becomes(site, process, "queue_depth", 3)
    full = await user.send(process, other, "hi")
    assert (full.status, full.code) == (503, "backlog_full") and int(full.headers["Retry-After"]) >= 1
    assert await site.value("SELECT count(*) FROM prompts") == 3
    await metric_becomes(site, process, "prompts_refused_total", 2)

    answer.set()

    async def taken() -> bool:
        return (await user.send(process, other, "hi")).status == 202

    await until(taken, "the service takes prompts again")
