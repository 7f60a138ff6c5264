"""Listeners and their streams when processes, Redis or PostgreSQL go away in the middle of a reply."""

import asyncio

from gembackend.embedded.gemini import Behaviour
from tests.acceptance.breakable import Breakable
from tests.acceptance.site import Site, User
from tests.listeners import listening, names, text_of
from tests.processes import Process

ANSWERED = ["prompt.queued", "prompt.running", "reply.delta", "prompt.answered"]


async def test_a_listener_hears_the_reply_anew_from_the_process_that_takes_over_from_a_killed_one(site: Site) -> None:
    site.gemini.script(Behaviour(text="never heard to its end", pace=30.0), Behaviour(text="this is it", pace=0.01))
    first, second = await site.start_many(2, PROMPT_LEASE_SECONDS=1)
    user = await site.user(first)
    room = await user.room(first)
    async with listening(first.url, room, user.token) as one, listening(second.url, room, user.token) as two:
        await user.accepted(first, room, "?")
        await asyncio.gather(one.until("reply.delta"), two.until("reply.delta"))
        worker = site.process_behind(site.gemini.calls[0].api_key)
        await worker.kill()
        survivor, listener, cut = (second, two, one) if worker is first else (first, one, two)
        await listener.until("prompt.answered")
    assert names(listener.heard) == ["prompt.queued", "prompt.running", "reply.delta", *ANSWERED[1:]]
    assert text_of(listener.heard) == "this is it"
    async with listening(survivor.url, room, user.token, cut.heard[-1].id) as again:
        await again.until("prompt.answered")
    assert names(again.heard) == ANSWERED[1:]
    assert text_of([*cut.heard, *again.heard]) == "this is it"


async def test_events_come_with_redis_away_and_text_again_when_it_is_back(
    shaky_site: Site, breakable: Breakable
) -> None:
    process, other = await shaky_site.start_many(2, PROMPT_LEASE_SECONDS=2)
    user = await shaky_site.user(process)
    room = await user.room(process)
    async with listening(process.url, room, user.token) as here, listening(other.url, room, user.token) as there:
        await breakable.kill_redis()
        await user.accepted(process, room, "without Redis")
        for listener in (here, there):
            await listener.until("prompt.queued")
        await breakable.start_redis()
        for listener in (here, there):
            await listener.until("prompt.answered")
        shaky_site.gemini.default = Behaviour(text="one two three four", pace=0.3)
        await heard_at_once(shaky_site, user, process, room)
        for listener in (here, there):
            await listener.until("prompt.answered")
            assert names(listener.heard)[:4] == ANSWERED
            assert text_of(listener.heard) == "one two three four"


async def heard_at_once(site: Site, user: User, process: Process, room: str) -> None:
    """Send a prompt whose reply takes its time."""
    arrived = site.gemini.arrived
    await user.accepted(process, room, "with Redis")
    await site.gemini.wait_for_calls(arrived + 1)


async def test_a_stream_outlives_an_outage_of_the_database(shaky_site: Site, breakable: Breakable) -> None:
    hold = asyncio.Event()
    shaky_site.gemini.script(Behaviour(hold=hold, text="before or after?"))
    process = await shaky_site.start(PROMPT_LEASE_SECONDS=2)
    user = await shaky_site.user(process)
    room = await user.room(process)
    async with listening(process.url, room, user.token) as listener:
        await user.accepted(process, room, "?")
        await listener.until("prompt.running")
        await breakable.stop_postgres()
        hold.set()
        await listener.until("reply.delta", count=4)
        assert text_of(listener.heard) == "before or after?", "what Gemini says is heard though it cannot be stored"
        await breakable.start_postgres()
        await listener.until("prompt.answered")
    assert text_of(listener.heard) == "before or after?"
    assert names(listener.heard) in (ANSWERED, ["prompt.queued", "prompt.running", "reply.delta", *ANSWERED[1:]])
