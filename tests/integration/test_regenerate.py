"""A prompt asked once more."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gembackend.embedded.gemini import Behaviour
from tests.accounts import Answer
from tests.whole import Whole, whole_service


@pytest.fixture
async def whole(database_url: str, redis_url: str) -> AsyncIterator[Whole]:
    async with whole_service(database_url, redis_url) as started:
        await started.make_pro()
        yield started


async def again(whole: Whole, prompt: Any, body: Any = None, **headers: str) -> Answer:
    """Regenerate a prompt, waiting for the answer."""
    sent = {"Prefer": "wait=20", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await whole.client.call("POST", f"/v1/prompt/{prompt['id']}/regenerate", body, headers=sent)


def asked(whole: Whole) -> list[str]:
    """What Gemini was sent last: the texts, oldest first."""
    return [text for _, text in whole.gemini.calls[-1].contents]


@pytest.mark.pooled
async def test_the_same_text_is_asked_afresh_at_the_rooms_tail(whole: Whole) -> None:
    room = await whole.room()
    whole.gemini.script(*(Behaviour(text=text) for text in ("red", "blue", "green", "grey", "white")))
    await whole.ask(room, "first")
    prompt = await whole.ask(room, "colour?")
    second = await again(whole, prompt)
    assert (second.status, second.body["status"], second.body["prompt"]) == (200, "answered", "colour?")
    assert second.headers["Location"] == f"/v1/prompt/{second.body['id']}" != f"/v1/prompt/{prompt['id']}"
    assert second.headers["Preference-Applied"] == "wait=20"
    assert second.body["reply"]["content"] == "green"
    assert asked(whole) == ["first", "red", "colour?"]
    third = await again(whole, second.body)
    assert (third.body["reply"]["content"], asked(whole)) == ("grey", ["first", "red", "colour?"])
    await whole.ask(room, "next")
    everything = ["first", "red", "colour?", "blue", "colour?", "green", "colour?", "grey"]
    assert asked(whole) == [*everything, "next"]
    page = (await whole.client.call("GET", f"/v1/chatroom/{room}/message/all")).body
    assert [message["content"] for message in page["messages"]] == [*everything, "next", "white"]
    latest = (await whole.client.call("GET", f"/v1/chatroom/{room}/message")).body
    assert latest["prompt"]["prompt"] == "next"


async def test_what_is_left_out_does_not_count_among_the_messages_sent(database_url: str, redis_url: str) -> None:
    async with whole_service(database_url, redis_url, PROMPT_HISTORY_MESSAGES="4") as whole:
        room = await whole.room()
        whole.gemini.script(*(Behaviour(text=f"reply {number}") for number in range(5)))
        for number in range(3):
            prompt = await whole.ask(room, f"number {number}")
        prompt = (await again(whole, prompt)).body
        assert asked(whole) == ["number 0", "reply 0", "number 1", "reply 1", "number 2"]
        await again(whole, prompt)
        assert asked(whole) == ["number 0", "reply 0", "number 1", "reply 1", "number 2"]


async def test_without_waiting_it_is_queued(whole: Whole) -> None:
    room, gate = await whole.room(), asyncio.Event()
    prompt = await whole.ask(room, "one")
    whole.gemini.script(Behaviour(hold=gate))
    for body in (None, {}):
        sent = await whole.client.call("POST", f"/v1/prompt/{prompt['id']}/regenerate", body)
        assert (sent.status, sent.body["status"], sent.body["chatroom_id"]) == (202, "queued", room)
        assert "Preference-Applied" not in sent.headers
    gate.set()
    watched = await whole.client.call("GET", sent.headers["Location"], headers={"Prefer": "wait=20"})
    assert watched.body["status"] == "answered"


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_a_prompt_that_has_no_answer_can_be_asked_once_more(whole: Whole, end: str) -> None:
    room = await whole.room()
    if end == "failed":
        whole.gemini.script(Behaviour(finish_reason="SAFETY"), Behaviour(text="after all"))
        prompt = await whole.ask(room, "hm")
    else:
        whole.gemini.script(Behaviour(hang=True), Behaviour(text="after all"))
        prompt = (await whole.client.call("POST", f"/v1/chatroom/{room}/message", {"prompt": "hm"})).body
        await whole.gemini.wait_for_calls(1)
        prompt = (await whole.client.call("DELETE", f"/v1/prompt/{prompt['id']}")).body
    assert prompt["status"] == end
    answer = await again(whole, prompt)
    assert (answer.status, answer.body["reply"]["content"]) == (200, "after all")


async def test_only_the_latest_finished_prompt_can_be_asked_once_more(whole: Whole) -> None:
    room, gate = await whole.room(), asyncio.Event()
    first, second = await whole.ask(room, "one"), await whole.ask(room, "two")
    answer = await again(whole, first)
    assert (answer.status, answer.code) == (409, "not_latest")
    whole.gemini.script(Behaviour(hold=gate))
    running = (await whole.client.call("POST", f"/v1/chatroom/{room}/message", {"prompt": "three"})).body
    answer = await again(whole, running)
    assert (answer.status, answer.code) == (409, "prompt_unfinished")
    behind = await whole.client.call("POST", f"/v1/prompt/{second['id']}/regenerate")
    assert (behind.status, behind.body["status"]) == (202, "queued"), "the latest that has finished is still the second"
    gate.set()
    await whole.client.call("GET", behind.headers["Location"], headers={"Prefer": "wait=20"})
    assert (await again(whole, second)).code == "not_latest"
    assert (await again(whole, await whole.ask(await whole.room(), "elsewhere"))).status == 200


async def test_what_is_someone_elses_or_nobodys_is_not_found(whole: Whole) -> None:
    prompt = await whole.ask(await whole.room(), "mine")
    whole.client.token = await whole.client.join()
    for wanted in (prompt["id"], "01a20454-44a5-71c7-8f49-2353c39fef8a", "7"):
        answer = await again(whole, {"id": wanted})
        assert (answer.status, answer.code, answer.body["detail"]) == (404, "not_found", "There is no such prompt.")


async def test_the_same_key_gives_the_first_answer_though_the_room_has_gone_on(whole: Whole) -> None:
    room = await whole.room()
    prompt = await whole.ask(room, "one")
    first = await again(whole, prompt, Idempotency_Key="once")
    await whole.ask(room, "two")
    calls = whole.gemini.arrived
    replayed = await again(whole, prompt, Idempotency_Key="once")
    assert (replayed.status, replayed.body) == (first.status, first.body)
    assert replayed.headers["Location"] == first.headers["Location"]
    assert whole.gemini.arrived == calls
    assert (await again(whole, prompt, Idempotency_Key="twice")).code == "not_latest"
    assert (await again(whole, prompt)).code == "not_latest"


async def test_a_key_of_another_request_is_refused(whole: Whole) -> None:
    room = await whole.room()
    prompt = await whole.ask(room, "one", **{"Idempotency-Key": "asked"})
    answer = await again(whole, prompt, Idempotency_Key="asked")
    assert (answer.status, answer.code) == (422, "idempotency_key_reused")
    other = await whole.ask(await whole.room(), "one")
    await again(whole, prompt, Idempotency_Key="again")
    assert (await again(whole, other, Idempotency_Key="again")).code == "idempotency_key_reused"


@pytest.mark.pooled
async def test_fifty_at_once_with_one_key_are_one_prompt(whole: Whole) -> None:
    prompt = await whole.ask(await whole.room(), "one")
    answers = await asyncio.gather(*(again(whole, prompt, Idempotency_Key="once") for _ in range(50)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body["id"] for answer in answers}) == 1
    assert whole.gemini.arrived == 2


async def test_it_counts_and_is_bounded_as_any_prompt(database_url: str, redis_url: str) -> None:
    limits = {"BASIC_DAILY_PROMPTS": "2", "PROMPT_ROOM_LIMIT": "1"}
    async with whole_service(database_url, redis_url, **limits) as whole:
        prompt = await whole.ask(await whole.room(), "one")
        prompt = (await again(whole, prompt)).body
        refused = await again(whole, prompt)
        assert (refused.status, refused.code) == (429, "daily_limit_reached")
        assert int(refused.headers["Retry-After"]) >= 1
        await whole.make_pro()
        gate = asyncio.Event()
        whole.gemini.script(Behaviour(hold=gate))
        path = f"/v1/prompt/{prompt['id']}/regenerate"
        assert (await whole.client.call("POST", path)).status == 202
        refused = await whole.client.call("POST", path)
        assert (refused.status, refused.code) == (429, "room_busy")
        gate.set()
