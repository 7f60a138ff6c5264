"""A process that stands still past its lease, and then goes on as if nothing had happened."""

import asyncio

from gembackend.embedded.gemini import Behaviour
from tests.acceptance.site import Site
from tests.processes import until


async def test_a_process_that_was_frozen_past_its_lease_changes_nothing_any_more(site: Site) -> None:
    before_the_thaw, at_last = asyncio.Event(), asyncio.Event()
    site.gemini.script(
        Behaviour(hold=before_the_thaw, text="the zombie's answer"),
        Behaviour(hold=at_last, text="the heir's answer"),
    )
    zombie = await site.start(PROMPT_LEASE_SECONDS=1)
    user = await site.user(zombie)
    room = await user.room(zombie)
    prompt_id = await user.accepted(zombie, room, "Who answers?")
    await site.gemini.wait_for_calls(1)
    await zombie.freeze()
    heir = await site.start(PROMPT_LEASE_SECONDS=1)
    await site.gemini.wait_for_calls(2)
    state = "SELECT status, fence, attempts, leased_by FROM prompts"
    taken_over = await site.fetch(state)
    assert (taken_over[0]["status"], taken_over[0]["fence"], taken_over[0]["attempts"]) == ("running", 2, 2)

    before_the_thaw.set()  # its answer waits in the frozen process's socket
    await site.gemini.wait_until(lambda: site.gemini.calls[0].finished is not None)
    zombie.thaw()

    async def it_tried() -> bool:
        return bool(zombie.events("stale_write") or zombie.events("leases_lost"))

    await until(it_tried, "the zombie hears that its time is over")
    assert await site.fetch(state) == taken_over
    assert await site.value("SELECT count(*) FROM chatrooms_messages") == 0

    at_last.set()
    prompt = await user.finished(zombie, prompt_id)
    assert prompt["reply"]["content"] == "the heir's answer"
    assert await site.value("SELECT count(*) FROM chatrooms_messages") == 2
    assert await site.metric(zombie, "stale_writes_total") + await site.metric(zombie, "leases_lost_total") >= 1
    assert await site.metric(heir, "takeovers_total") == 1

    other = await user.accepted(zombie, room, "Is it of use again?")
    assert (await user.finished(zombie, other))["status"] == "answered"
    await site.at_rest()
