"""Answers that PostgreSQL will not take as they are."""

import asyncio

from gembackend.embedded.gemini import Behaviour
from tests.acceptance.site import Site


async def test_one_answer_that_cannot_be_stored_does_not_hold_up_the_others(site: Site) -> None:
    together = asyncio.Event()
    texts = {f"question {number}": f"answer {number}" for number in range(12)}
    site.gemini.rule(lambda call: Behaviour(hold=together, text=texts[call.prompt]))
    process = await site.start()
    user = await site.user(process, "Basic")
    await site.fetch("UPDATE users SET subscription_tier = 'Pro'")
    await site.fetch("ALTER TABLE chatrooms_messages ADD CONSTRAINT whim CHECK (content <> 'answer 7')")
    sent = [await user.accepted(process, await user.room(process), question) for question in texts]
    await site.gemini.wait_for_calls(12)
    together.set()
    prompts = await asyncio.gather(*(user.finished(process, prompt_id) for prompt_id in sent))
    failed = prompts.pop(7)
    assert failed["status"] == "failed" and failed["error"]["code"] == "answer_unstorable" and not failed["reply"]
    assert {prompt["status"] for prompt in prompts} == {"answered"}
    assert await site.value("SELECT used FROM prompt_usage") == 11
    refused = {line["prompt_id"] for line in process.events("ending_refused")}
    assert refused == {failed["id"]}, "only the row itself was refused in the end"
    await site.at_rest()


async def test_a_nul_in_an_answer_is_left_out_and_invalid_text_is_asked_for_again(site: Site) -> None:
    site.gemini.script(
        Behaviour(text=b"half a \xed\xa0\x80 surrogate"), Behaviour(text="a\x00b", response_id="odd\x00id")
    )
    process = await site.start()
    user = await site.user(process)
    prompt = await user.finished(process, await user.accepted(process, await user.room(process), "hi"))
    assert (prompt["status"], prompt["attempts"]) == ("answered", 2)
    assert (prompt["reply"]["id"], prompt["reply"]["content"]) == ("oddid_A", "ab")
