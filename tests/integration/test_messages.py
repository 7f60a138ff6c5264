"""Prompts and messages over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from gembackend.embedded.gemini import Behaviour
from tests.listeners import listening
from tests.whole import Whole, whole_service


@pytest.fixture
async def whole(database_url: str, redis_url: str) -> AsyncIterator[Whole]:
    async with whole_service(database_url, redis_url) as started:
        yield started


async def test_waiting_for_the_answer_takes_one_call(whole: Whole) -> None:
    room = await whole.room()
    whole.gemini.script(Behaviour(text="Hello, Ada.", response_id="abc"))
    answer = await whole.client.call(
        "POST", f"/v1/chatroom/{room}/message", {"prompt": "Hello!"}, headers={"Prefer": "wait=20"}
    )
    assert answer.status == 200
    assert answer.headers["Preference-Applied"] == "wait=20"
    assert answer.headers["Location"] == f"/v1/prompt/{answer.body['id']}"
    assert answer.body["status"] == "answered"
    assert answer.body["reply"] == {
        "id": "abc_A",
        "role": "assistant",
        "content": "Hello, Ada.",
        "created_at": answer.body["finished_at"],
        "prompt_id": answer.body["id"],
    }
    assert answer.body["usage"]["prompt_tokens"] > 0


async def test_without_waiting_the_prompt_is_queued_and_can_be_watched(whole: Whole) -> None:
    room, gate = await whole.room(), asyncio.Event()
    whole.gemini.script(Behaviour(hold=gate))
    sent = await whole.client.call("POST", f"/v1/chatroom/{room}/message", {"prompt": "Hello!"})
    assert sent.status == 202
    assert "Preference-Applied" not in sent.headers
    assert sent.body | {"id": "", "created_at": ""} == {
        "id": "",
        "chatroom_id": room,
        "status": "queued",
        "prompt": "Hello!",
        "attempts": 0,
        "created_at": "",
        "finished_at": None,
        "error": None,
        "reply": None,
        "usage": None,
    }
    await whole.gemini.wait_for_calls(1)
    running = await whole.client.call("GET", sent.headers["Location"])
    assert (running.status, running.body["status"], running.body["attempts"]) == (200, "running", 1)
    watching = asyncio.create_task(
        whole.client.call("GET", sent.headers["Location"], headers={"Prefer": "wait=20, respond-async"})
    )
    gate.set()
    assert (await watching).body["status"] == "answered"


async def test_a_wait_that_is_too_short_answers_202_with_the_prompt_as_it_is(whole: Whole) -> None:
    room, gate = await whole.room(), asyncio.Event()
    whole.gemini.script(Behaviour(hold=gate))
    answer = await whole.client.call(
        "POST", f"/v1/chatroom/{room}/message", {"prompt": "Hello!"}, headers={"Prefer": "wait=1"}
    )
    assert (answer.status, answer.body["status"]) == (202, "running")
    assert answer.headers["Preference-Applied"] == "wait=1"
    gate.set()


async def test_the_latest_exchange_and_all_messages_can_be_read_back(whole: Whole) -> None:
    room = await whole.room()
    latest, everything = f"/v1/chatroom/{room}/message", f"/v1/chatroom/{room}/message/all"
    assert (await whole.client.call("GET", latest)).body == {"prompt": None}
    assert (await whole.client.call("GET", everything)).body == {"messages": [], "next_cursor": None}
    prompts = [await whole.ask(room, f"question {number}") for number in range(3)]
    assert (await whole.client.call("GET", latest)).body == {"prompt": prompts[-1]}
    messages, path = [], everything + "?limit=4"
    while path:
        page = (await whole.client.call("GET", path)).body
        assert len(page["messages"]) <= 4
        messages += page["messages"]
        path = f"{everything}?limit=4&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert [(message["role"], message["prompt_id"]) for message in messages] == [
        (role, prompt["id"]) for prompt in prompts for role in ("user", "assistant")
    ]
    assert [message["content"] for message in messages if message["role"] == "user"] == [
        "question 0",
        "question 1",
        "question 2",
    ]


@pytest.mark.pooled
async def test_the_sixth_prompt_of_a_basic_user_is_refused_until_midnight(whole: Whole) -> None:
    room = await whole.room()
    for number in range(5):
        await whole.ask(room, f"number {number}")
    sixth = await whole.client.call("POST", f"/v1/chatroom/{room}/message", {"prompt": "one more"})
    assert (sixth.status, sixth.code) == (429, "daily_limit_reached")
    # By the wall clock: whole seconds, up to the first moment of the day in which there are prompts again.
    comes_back = datetime.now(UTC) + timedelta(seconds=int(sixth.headers["Retry-After"]))
    midnight = comes_back.replace(hour=0, minute=0, second=0, microsecond=0)
    assert timedelta(0) <= comes_back - midnight < timedelta(seconds=30)
    assert midnight - timedelta(days=1) <= datetime.now(UTC) < midnight
    me = (await whole.client.call("GET", "/v1/user/me")).body
    assert (me["usage"]["prompts_today"], me["usage"]["daily_limit"]) == (5, 5)
    await whole.make_pro()
    await whole.ask(room, "one more")
    assert (await whole.client.call("GET", "/v1/user/me")).body["usage"]["daily_limit"] is None


async def test_an_idempotency_key_gives_the_same_prompt_again(whole: Whole) -> None:
    room = await whole.room()
    first = await whole.ask(room, "once", **{"Idempotency-Key": "k-1"})
    path = f"/v1/chatroom/{room}/message"
    again = await whole.client.call("POST", path, {"prompt": "once"}, headers={"Idempotency-Key": "k-1"})
    assert (again.status, again.body) == (202, first)
    waited = await whole.ask(room, "once", **{"Idempotency-Key": "k-1"})
    assert waited == first
    other = await whole.client.call("POST", path, {"prompt": "twice"}, headers={"Idempotency-Key": "k-1"})
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    assert whole.gemini.arrived == 1


async def test_an_idempotency_key_is_kept_for_24_hours_and_then_is_as_good_as_new(whole: Whole) -> None:
    room, key = await whole.room(), {"Idempotency-Key": "k-1"}
    path = f"/v1/chatroom/{room}/message"

    async def aged(prompt_id: str, age: str) -> None:
        async with whole.service.database.connection() as connection:
            await connection.execute(
                "UPDATE prompts SET created_at = now() - $2::text::interval WHERE id = $1::text::uuid", prompt_id, age
            )

    first = await whole.ask(room, "once", **key)
    await aged(first["id"], "23 hours 59 minutes")
    again = await whole.client.call("POST", path, {"prompt": "once"}, headers=key)
    assert (again.status, again.body["id"]) == (202, first["id"])
    other = await whole.client.call("POST", path, {"prompt": "twice"}, headers=key)
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    await aged(first["id"], "24 hours 1 minute")
    second = await whole.ask(room, "twice", **key)
    assert second["id"] != first["id"] and second["status"] == "answered"
    assert (await whole.ask(room, "twice", **key))["id"] == second["id"], "the key is the new prompt's now"
    assert (await whole.client.call("GET", f"/v1/prompt/{first['id']}")).body["status"] == "answered"
    assert whole.gemini.arrived == 2
    async with whole.service.database.connection() as connection:
        assert await connection.fetchval("SELECT used FROM prompt_usage") == 2
        keys = await connection.fetch("SELECT id::text, idempotency_key FROM prompts")
    assert dict(map(tuple, keys)) == {first["id"]: None, second["id"]: "k-1"}


async def test_a_failed_prompt_says_why_and_is_no_message(whole: Whole) -> None:
    room = await whole.room()
    whole.gemini.script(Behaviour(finish_reason="SAFETY"))
    prompt = await whole.ask(room, "hm")
    assert (prompt["status"], prompt["reply"], prompt["usage"]) == ("failed", None, None)
    assert prompt["error"]["code"] == "content_blocked" and prompt["error"]["message"]
    assert (await whole.client.call("GET", f"/v1/chatroom/{room}/message/all")).body["messages"] == []
    assert (await whole.client.call("GET", "/v1/user/me")).body["usage"]["prompts_today"] == 0


async def test_a_prompt_that_cannot_be_is_refused_with_the_field(whole: Whole) -> None:
    room = await whole.room()
    for prompt in ("", "   \n", "x" * 8001, 7, None, ["x"], "nul \x00", "lone \ud800"):
        answer = await whole.client.call("POST", f"/v1/chatroom/{room}/message", {"prompt": prompt})
        assert (answer.status, answer.code) == (422, "validation_failed"), prompt
        assert [error["field"] for error in answer.body["errors"]] == ["prompt"], prompt


async def test_a_prompt_can_be_taken_back_until_it_has_finished(whole: Whole) -> None:
    room = await whole.room()
    whole.gemini.script(Behaviour(hang=True))
    sent = await whole.client.call("POST", f"/v1/chatroom/{room}/message", {"prompt": "never mind"})
    await whole.gemini.wait_for_calls(1)
    taken_back = await whole.client.call("DELETE", sent.headers["Location"])
    assert (taken_back.status, taken_back.body["status"]) == (200, "cancelled")
    assert taken_back.body["finished_at"] is not None
    await whole.gemini.wait_until(lambda: whole.gemini.calls[0].cancelled)
    again = await whole.client.call("DELETE", sent.headers["Location"])
    assert (again.status, again.code) == (409, "prompt_finished")
    assert (await whole.ask(room, "another"))["status"] == "answered"


async def test_what_is_not_the_users_does_not_exist(whole: Whole) -> None:
    room = await whole.room()
    prompt = await whole.ask(room, "mine")
    unknown = "01a20454-44a5-71c7-8f49-2353c39fef8a"
    mine, whole.client.token = whole.client.token, await whole.client.join()
    for method, path, body in (
        ("GET", "/v1/chatroom/{room}", None),
        ("PATCH", "/v1/chatroom/{room}", {"name": "theirs"}),
        ("DELETE", "/v1/chatroom/{room}", None),
        ("POST", "/v1/chatroom/{room}/message", {"prompt": "hi"}),
        ("GET", "/v1/chatroom/{room}/message", None),
        ("GET", "/v1/chatroom/{room}/message/all", None),
        ("GET", "/v1/prompt/{prompt}", None),
        ("GET", "/v1/chatroom/{room}/export", None),
        ("DELETE", "/v1/prompt/{prompt}", None),
        ("POST", "/v1/prompt/{prompt}/regenerate", None),
    ):
        foreign = await whole.client.call(method, path.format(room=room, prompt=prompt["id"]), body)
        absent = await whole.client.call(method, path.format(room=unknown, prompt=unknown), body)
        garbled = await whole.client.call(method, path.format(room="7", prompt="x'y"), body)
        assert [answer.status for answer in (foreign, absent, garbled)] == [404, 404, 404], path
        assert foreign.code == absent.code == garbled.code == "not_found"
        assert foreign.body | {"request_id": ""} == absent.body | {"request_id": ""}
    whole.client.token = mine
    assert (await whole.client.call("GET", f"/v1/chatroom/{room}")).body["name"] == "room"


@pytest.mark.pooled
async def test_chatrooms_are_made_listed_renamed_and_deleted(whole: Whole) -> None:
    made = [await whole.client.call("POST", "/v1/chatroom", {"name": f"room {number}"}) for number in range(5)]
    assert {answer.status for answer in made} == {201}
    assert made[0].headers["Location"] == f"/v1/chatroom/{made[0].body['id']}"
    unnamed = await whole.client.call("POST", "/v1/chatroom", {})
    assert unnamed.body["name"]
    first = (await whole.client.call("GET", "/v1/chatroom?limit=4")).body
    await whole.client.call("POST", "/v1/chatroom", {"name": "made meanwhile"})
    rest = (await whole.client.call("GET", f"/v1/chatroom?limit=4&cursor={first['next_cursor']}")).body
    assert [room["id"] for room in first["chatrooms"] + rest["chatrooms"]] == [
        answer.body["id"] for answer in [unnamed, *reversed(made)]
    ]
    assert rest["next_cursor"] is None
    path = made[0].headers["Location"]
    renamed = await whole.client.call("PATCH", path, {"name": "another name"})
    assert (renamed.status, renamed.body["name"]) == (200, "another name")
    assert renamed.body["updated_at"] > renamed.body["created_at"]
    assert (await whole.client.call("DELETE", path)).status == 204
    assert (await whole.client.call("GET", path)).status == 404


async def test_a_chatroom_counts_what_is_in_it(whole: Whole) -> None:
    room, gate = await whole.room(), asyncio.Event()
    await whole.ask(room, "one")
    whole.gemini.script(Behaviour(hold=gate))
    await whole.client.call("POST", f"/v1/chatroom/{room}/message", {"prompt": "two"})
    detail = (await whole.client.call("GET", f"/v1/chatroom/{room}")).body
    assert detail["message_counts"] == {"user": 1, "assistant": 1}
    assert detail["pending_prompts"] == 1
    assert detail["last_message_at"] is not None
    gate.set()


async def test_deleting_a_room_closes_its_running_prompt_and_tells_who_waits_and_who_listens(whole: Whole) -> None:
    room, message = await whole.room(), {"prompt": "two"}
    whole.gemini.script(Behaviour(hang=True))
    async with listening(whole.service.url, room, whole.client.token) as listener:
        path = f"/v1/chatroom/{room}/message"
        waiting = asyncio.create_task(whole.client.call("POST", path, message, headers={"Prefer": "wait=30"}))
        running = (await listener.until("prompt.running"))[-1].data
        await whole.gemini.wait_for_calls(1)
        assert (await whole.client.call("DELETE", f"/v1/chatroom/{room}")).status == 204
        async with asyncio.timeout(15):
            assert (await waiting).status == 404, "long before it would have given up"
            assert await listener.rest() == []
    await whole.gemini.wait_until(lambda: whole.gemini.calls[0].cancelled)
    assert (await whole.client.call("GET", f"/v1/prompt/{running['id']}")).status == 404
    assert (await whole.client.call("GET", "/v1/user/me")).body["usage"]["prompts_today"] == 1
    assert (await whole.ask(await whole.room(), "still well?"))["status"] == "answered"


async def test_a_page_that_cannot_be_is_refused(whole: Whole) -> None:
    for path in ("/v1/chatroom", f"/v1/chatroom/{await whole.room()}/message/all"):
        for query in ("limit=0", "limit=201", "limit=x", "cursor=%00", "cursor=bm8", "limit=1e1"):
            answer = await whole.client.call("GET", f"{path}?{query}")
            assert (answer.status, answer.code) == (422, "validation_failed"), (path, query)
            assert answer.body["errors"][0]["field"] == query.split("=")[0], (path, query)
