"""Processes that end: killed, asked to, and asked to twice."""

import asyncio
from datetime import datetime, timedelta

from gembackend.embedded.gemini import Behaviour
from tests.acceptance.breakable import Breakable
from tests.acceptance.site import Site
from tests.listeners import listening, names
from tests.processes import Process, until


async def test_a_process_killed_between_the_202_and_the_answer_loses_nothing(site: Site) -> None:
    site.gemini.script(Behaviour(hang=True))
    process = await site.start(PROMPT_LEASE_SECONDS=1, PROMPT_WORKERS=1)
    user = await site.user(process)
    under_way = await user.accepted(process, await user.room(process), "under way")
    await site.gemini.wait_for_calls(1)
    waiting = await user.accepted(process, await user.room(process), "waiting")
    await process.kill()
    other = await site.start(PROMPT_LEASE_SECONDS=1)
    prompts = [await user.finished(other, prompt_id) for prompt_id in (under_way, waiting)]
    assert [(prompt["status"], prompt["attempts"]) for prompt in prompts] == [("answered", 2), ("answered", 1)]


async def test_a_drain_finishes_what_it_can_puts_back_the_rest_and_leaves_nothing_behind(site: Site) -> None:
    soon = asyncio.Event()
    site.gemini.rule(lambda call: Behaviour(hold=soon) if call.prompt == "soon" else Behaviour(hang=True))
    process = await site.start(SHUTDOWN_GRACE_SECONDS=6)
    user = await site.user(process)
    finishing = await user.accepted(process, await user.room(process), "soon")
    cut_off = await user.accepted(process, await user.room(process), "never")
    behind = await user.accepted(process, await user.room(process), "soon")
    heard_room = await user.room(process)
    async with listening(process.url, heard_room, user.token) as listener:
        sending = asyncio.create_task(user.send(process, heard_room, "soon", Prefer="wait=30"))
        await site.gemini.wait_for_calls(4)
        watching = [
            asyncio.create_task(user.call(process, "GET", path, Prefer="wait=30"))
            for path in (f"/v1/prompt/{cut_off}", f"/v1/prompt/{finishing}")
        ]
        process.terminate()

        async def not_ready() -> bool:
            return (await site.get(process, "/readyz")).status == 503

        await until(not_ready, "readiness gone")
        assert [task for task in (sending, *watching) if task.done()] == [], "whoever waits goes on waiting"
        soon.set()
        sent = await sending
        assert (sent.status, sent.body["status"]) == (200, "answered")
        given_back, answered = await asyncio.gather(*watching)
        assert (answered.status, answered.body["status"]) == (200, "answered")
        assert (given_back.status, given_back.body["status"], given_back.body["attempts"]) == (200, "queued", 0)
        assert names(await listener.rest())[-1] == "prompt.answered", "whoever listens hears the end"
    assert await process.ended() == 0
    assert await stopping(process) < timedelta(seconds=6)
    states = await site.fetch("SELECT id::text, status, attempts FROM prompts ORDER BY created_at")
    assert [tuple(row) for row in states] == [
        (finishing, "answered", 1),
        (cut_off, "queued", 0),
        (behind, "answered", 1),
        (sent.body["id"], "answered", 1),
    ]
    assert await site.consumers() == 0
    assert await site.pending() == 0


async def test_a_drain_ends_in_time_though_the_database_stands_still_and_nothing_is_lost(
    shaky_site: Site, breakable: Breakable
) -> None:
    answer = asyncio.Event()
    shaky_site.gemini.default = Behaviour(hold=answer)
    process = await shaky_site.start(SHUTDOWN_GRACE_SECONDS=3, PROMPT_LEASE_SECONDS=1)
    user = await shaky_site.user(process)
    prompt_id = await user.accepted(process, await user.room(process), "hi")
    await shaky_site.gemini.wait_for_calls(1)
    await breakable.freeze_postgres()
    process.terminate()
    answer.set()
    assert await process.ended() == 0
    assert await stopping(process) < timedelta(seconds=3)
    breakable.thaw_postgres()
    other = await shaky_site.start(PROMPT_LEASE_SECONDS=1)
    assert (await user.finished(other, prompt_id))["status"] == "answered"


async def test_a_second_signal_ends_the_process_on_the_spot(site: Site) -> None:
    site.gemini.default = Behaviour(hang=True)
    process = await site.start(SHUTDOWN_GRACE_SECONDS=60)
    user = await site.user(process)
    await user.accepted(process, await user.room(process), "hi")
    await site.gemini.wait_for_calls(1)
    process.terminate()
    await process.logged("draining")
    process.terminate()
    assert await process.ended() == 130


async def stopping(process: Process) -> timedelta:
    """How long a process took to stop, by its log: the interpreter's own end is not counted."""
    stopped, began = await process.logged("stopped"), await process.logged("stopping")
    return datetime.fromisoformat(stopped["timestamp"]) - datetime.fromisoformat(began["timestamp"])
