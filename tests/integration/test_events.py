"""GET /v1/chatroom/{id}/events: the story of a room as it happens, resumed anywhere, ended when it must."""

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest

from gembackend.app import Service
from gembackend.embedded.gemini import Behaviour
from gembackend.live.feed import Feed
from gembackend.live.polls import FeedPoll
from gembackend.messages import event_routes, store
from gembackend.messages.story import Entry
from gembackend.plumbing import metrics
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database
from gembackend.prompts import outcome
from gembackend.web import flow
from tests.accounts import CHEAP, Client, settings
from tests.feeds import Line
from tests.listeners import ENDS, Listener, listening, names, stories, text_of
from tests.processes import until
from tests.whole import Whole, whole_service

ANSWERED = ["prompt.queued", "prompt.running", "reply.delta", "prompt.answered"]


@pytest.fixture
async def whole(database_url: str, redis_url: str) -> AsyncIterator[Whole]:
    async with whole_service(database_url, redis_url) as running:
        await running.make_pro()
        yield running


@pytest.fixture
async def second(whole: Whole, database_url: str, redis_url: str) -> AsyncIterator[Service]:
    """Another process over the same stores; which of the two works on a prompt is chance."""
    chosen = settings(database_url, redis_url, GEMINI_ENDPOINT=whole.gemini.url)
    service = Service(dataclasses.replace(chosen, server_port=0), password_cost=CHEAP)
    await service.start()
    yield service
    await service.stop(10)


async def nobody_listens() -> bool:
    return metrics.STREAMS_OPEN._value.get() == 0


async def send(whole: Whole, room: str, text: str) -> str:
    answer = await whole.client.call("POST", f"/v1/chatroom/{room}/message", {"prompt": text})
    assert answer.status == 202, answer.body
    return str(answer.body["id"])


def listen(
    whole: Whole, room: str, last: str | None = None, at: Service | None = None
) -> AbstractAsyncContextManager[Listener]:
    return listening((at or whole.service).url, room, whole.client.token, last)


@pytest.mark.pooled
async def test_a_listener_hears_a_prompt_from_the_queue_to_the_answer(whole: Whole) -> None:
    whole.gemini.default = Behaviour(text="Paris is the capital of France.", pace=0.01)
    room = await whole.room()
    async with listen(whole, room) as listener:
        prompt_id = await send(whole, room, "Capital of France?")
        events = await listener.until("prompt.answered")
    assert names(events) == ANSWERED
    assert [event.name for event in events].count("reply.delta") > 2
    assert text_of(events) == "Paris is the capital of France." == events[-1].data["reply"]["content"]
    assert {event.data.get("id", event.data.get("prompt_id")) for event in events} == {prompt_id}
    assert all(event.data.keys() == {"prompt_id", "text"} for event in events if event.name == "reply.delta")
    for event, status in ((events[0], "queued"), (events[1], "running"), (events[-1], "answered")):
        assert (event.data["status"], event.data["chatroom_id"]) == (status, room)
    assert events[-1].data == (await whole.client.call("GET", f"/v1/prompt/{prompt_id}")).body
    assert len({event.id for event in events}) == len(events)


async def test_text_is_heard_while_gemini_is_still_talking(whole: Whole) -> None:
    whole.gemini.script(Behaviour(text="one two three four", pace=0.3))
    room = await whole.room()
    async with listen(whole, room) as listener:
        await send(whole, room, "Count.")
        await listener.until("reply.delta")
        assert whole.gemini.calls[0].streaming
        assert whole.gemini.calls[0].finished is None
        await listener.until("prompt.answered")
    assert text_of(listener.heard) == "one two three four"


async def test_a_reply_is_streamed_only_where_somebody_listens_or_did_a_while_ago(whole: Whole) -> None:
    room, other = await whole.room(), await whole.room()
    await whole.ask(room, "before")
    async with listen(whole, room):
        await whole.ask(room, "meanwhile")
        await whole.ask(other, "elsewhere")
    await whole.ask(room, "afterwards")
    assert [(call.prompt, call.streaming) for call in whole.gemini.calls] == [
        ("before", False),
        ("meanwhile", True),
        ("elsewhere", False),
        ("afterwards", True),
    ]


@pytest.mark.pooled
async def test_a_new_listener_hears_of_what_has_not_ended_and_not_of_what_has(whole: Whole) -> None:
    room, hold = await whole.room(), asyncio.Event()
    await whole.ask(room, "long ago")
    whole.gemini.script(Behaviour(hold=hold, text="now"))
    running, queued = await send(whole, room, "running"), await send(whole, room, "queued")
    taken_back = await send(whole, room, "taken back")
    assert (await whole.client.call("DELETE", f"/v1/prompt/{taken_back}")).status == 200
    await whole.gemini.wait_for_calls(2)
    async with listen(whole, room) as listener:
        begun = await listener.until("prompt.queued", count=2)
        assert [(event.name, event.data["id"]) for event in begun] == [
            ("prompt.queued", running),
            ("prompt.running", running),
            ("prompt.queued", queued),
        ]
        hold.set()
        events = await listener.until("prompt.answered", count=2)
    assert names(events) == ["reply.delta", "prompt.answered", "prompt.running", "reply.delta", "prompt.answered"]


async def test_who_joins_in_the_middle_of_a_reply_hears_it_from_its_beginning(whole: Whole) -> None:
    whole.gemini.script(Behaviour(text="one two three four", pace=0.3))
    room = await whole.room()
    async with listen(whole, room) as first:
        await send(whole, room, "Count.")
        await first.until("reply.delta", count=2)
        async with listen(whole, room) as late:
            await late.until("reply.delta")
            assert whole.gemini.calls[0].finished is None
            await late.until("prompt.answered")
    assert text_of(late.heard) == "one two three four"
    assert names(late.heard) == ANSWERED


@pytest.mark.pooled
async def test_a_listener_that_comes_back_hears_exactly_the_rest_whichever_event_was_its_last(whole: Whole) -> None:
    room = await whole.room()
    whole.gemini.script(
        Behaviour(text="the first answer", pace=0.01),
        Behaviour(status="INVALID_ARGUMENT"),
        Behaviour(text="the third answer", pace=0.01),
    )
    async with listen(whole, room) as listener:
        for text in ("first", "second", "third"):
            await send(whole, room, text)
        hold = asyncio.Event()
        whole.gemini.rule(lambda _: Behaviour(hold=hold))
        await listener.until("prompt.answered", count=2)
        await send(whole, room, "fourth")
        await listener.until("prompt.running")
        cancelled = await send(whole, room, "fifth")
        await listener.until("prompt.queued")
        await whole.client.call("DELETE", f"/v1/prompt/{cancelled}")
        await listener.until("prompt.cancelled")
        hold.set()
        await listener.until("prompt.answered")
    everything = listener.heard
    assert sorted(event.name for event in everything if event.name != "reply.delta") == sorted(
        ["prompt.queued"] * 5 + ["prompt.running"] * 4 + ["prompt.answered"] * 3 + ["prompt.failed", "prompt.cancelled"]
    )
    for number, last in enumerate(everything[:-1]):
        async with listen(whole, room, last.id) as again:
            await again.until(*ENDS, count=sum(event.name in ENDS for event in everything[number + 1 :]))
        assert stories(everything[: number + 1] + again.heard) == stories(everything), (number, last.id)


@pytest.mark.pooled
async def test_what_happens_in_one_process_is_heard_in_another_at_once(whole: Whole, second: Service) -> None:
    whole.gemini.default = Behaviour(text="one two three four", pace=0.25)
    room = await whole.room()
    async with listen(whole, room) as here, listen(whole, room, at=second) as there:
        await send(whole, room, "Count.")
        for listener in (here, there):
            await listener.until("reply.delta")
        assert whole.gemini.calls[0].finished is None, "one of them works on it, the other one hears it too"
        for listener in (here, there):
            await listener.until("prompt.answered")
            assert names(listener.heard) == ANSWERED
            assert text_of(listener.heard) == "one two three four"
            assert [event.name for event in listener.heard].count("reply.delta") > 2


async def test_a_reply_goes_on_in_another_process_where_it_was_left_in_the_middle(
    whole: Whole, second: Service
) -> None:
    whole.gemini.default = Behaviour(text="one two three four", pace=0.4)
    room = await whole.room()
    async with listen(whole, room) as here:
        await send(whole, room, "Count.")
        await here.until("reply.delta", count=2)
    for service in (whole.service, second):
        async with listen(whole, room, here.heard[-1].id, at=service) as there:
            await there.until("prompt.answered")
            assert names(there.heard) == ["reply.delta", "prompt.answered"]
            assert text_of([*here.heard, *there.heard]) == "one two three four"


async def test_an_attempt_that_fails_in_the_middle_is_forgotten_when_the_next_one_runs(whole: Whole) -> None:
    whole.gemini.script(
        Behaviour(text="no use at all, this", break_after=2, status="UNAVAILABLE"), Behaviour(text="this is it")
    )
    room = await whole.room()
    async with listen(whole, room) as listener:
        await send(whole, room, "Again?")
        events = await listener.until("prompt.answered")
    assert names(events) == ["prompt.queued", "prompt.running", "reply.delta", *ANSWERED[1:]]
    assert [event.data["attempts"] for event in events if event.name == "prompt.running"] == [1, 2]
    assert text_of(events) == "this is it"


async def test_what_postgresql_cannot_store_is_not_said_either(whole: Whole) -> None:
    whole.gemini.script(Behaviour(text="n\x00u\x00l and all"))
    room = await whole.room()
    async with listen(whole, room) as listener:
        await send(whole, room, "?")
        events = await listener.until("prompt.answered")
    assert text_of(events) == "nul and all" == events[-1].data["reply"]["content"]


async def test_every_change_is_told_without_waiting_for_the_poll(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: FeedPoll) -> int:
        return 0

    monkeypatch.setattr(FeedPoll, "run_once", never)
    async with whole_service(database_url, redis_url) as whole:
        await whole.make_pro()
        room, hold = await whole.room(), asyncio.Event()
        whole.gemini.script(Behaviour(hold=hold), Behaviour(status="UNAVAILABLE"))
        async with listen(whole, room) as listener:
            await send(whole, room, "running")
            await listener.until("prompt.running")
            taken_back = await send(whole, room, "taken back")
            await listener.until("prompt.queued")
            await whole.client.call("DELETE", f"/v1/prompt/{taken_back}")
            await listener.until("prompt.cancelled")
            hold.set()
            await listener.until("prompt.answered")
            await send(whole, room, "tried again")
            await listener.until("prompt.answered")


@pytest.mark.pooled
async def test_a_long_story_is_told_page_by_page(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_routes, "PAGE", 2)
    room, hold = await whole.room(), asyncio.Event()
    for text in "abc":
        await whole.ask(room, text)
    whole.gemini.default = Behaviour(hold=hold, text="at last")
    unfinished = [await send(whole, room, text) for text in "defgh"]
    await whole.gemini.wait_for_calls(4)
    async with listen(whole, room, "0-0") as listener:
        events = await listener.until("prompt.queued", count=8)
        assert names(events) == [*ANSWERED * 3, "prompt.queued", "prompt.running", *["prompt.queued"] * 4]
        hold.set()
        events = await listener.until("prompt.answered", count=5)
    assert [event.data["id"] for event in events if event.name == "prompt.answered"] == unfinished


async def test_a_story_that_could_not_be_read_is_read_again(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    read, failures, away = store.story, 0, False

    async def failing(*arguments: Any) -> tuple[list[Entry], bool]:
        nonlocal failures
        failures += away
        if away:
            raise Fault("database_unavailable", "as the test wants it")
        return await read(*arguments)

    monkeypatch.setattr(event_routes.store, "story", failing)
    monkeypatch.setattr(event_routes, "CHECK_SECONDS", 0.3)
    room = await whole.room()
    async with listen(whole, room) as listener:
        away = True
        await whole.ask(room, "?")

        async def tried_beyond_the_poll() -> bool:
            return failures > 8

        await until(tried_beyond_the_poll, "the room read again and again")
        away = False
        assert names(await listener.until("prompt.answered")) == ANSWERED


async def test_a_stream_whose_time_is_over_still_tells_what_a_fault_of_the_database_kept_from_it(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await whole.room()
    await whole.ask(room, "?")
    read, failures = store.story, [Fault("database_unavailable", "as the test wants it")] * 2

    async def failing(*arguments: Any) -> tuple[list[Entry], bool]:
        if failures:
            raise failures.pop()
        return await read(*arguments)

    monkeypatch.setattr(event_routes.store, "story", failing)
    monkeypatch.setattr(event_routes, "CHECK_SECONDS", 0.05)
    answer = await whole.client.call(
        "GET", f"/v1/chatroom/{room}/events", headers={"Prefer": "wait=0", "Last-Event-ID": "0-0"}
    )
    assert not failures
    assert [line for line in answer.body.decode().splitlines() if line.startswith("event: ")] == [
        f"event: {name}" for name in ANSWERED
    ]


async def test_the_poll_tells_other_processes_which_rooms_are_listened_to(database_url: str) -> None:
    line, database, room = Line(), Database(database_url, 1), uuid4()
    hearer, other = Feed(line, "hearer"), Feed(line, "other")
    await database.open()
    with hearer.listen(room):
        line.feeds.append(other)
        try:
            await FeedPoll(database, hearer).run_once()
        finally:
            await database.close()
        sent = len(line.sent)
        other.changed([room])
        assert len(line.sent) == sent + 1


async def test_nobody_listens_to_another_users_room(whole: Whole) -> None:
    room = await whole.room()
    stranger = await whole.client.join()
    path = f"/v1/chatroom/{room}/events"
    denied = await whole.client.call("GET", path, token=stranger)
    absent = await whole.client.call("GET", f"/v1/chatroom/{uuid4()}/events")
    assert (denied.status, denied.code) == (absent.status, absent.code) == (404, "not_found")
    assert denied.body["detail"] == absent.body["detail"]


@pytest.mark.parametrize("last", ["junk", "1-1", "0-0~", "9" * 40])
async def test_a_last_event_id_that_is_none_of_this_room_is_refused(whole: Whole, last: str) -> None:
    room = await whole.room()
    headers = {"Last-Event-ID": last, "Prefer": "wait=0"}
    answer = await whole.client.call("GET", f"/v1/chatroom/{room}/events", headers=headers)
    assert (answer.status, answer.code) == (422, "validation_failed")
    assert answer.body["errors"][0]["field"] == "Last-Event-ID"


async def test_a_user_may_have_only_so_many_streams_and_gets_a_place_back(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_routes, "STREAMS_OF_A_USER", 2)
    monkeypatch.setattr(event_routes, "CHECK_SECONDS", 0.05)
    room = await whole.room()
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(listen(whole, room))
        refused = await whole.client.call("GET", f"/v1/chatroom/{room}/events")
        assert (refused.status, refused.code) == (429, "too_many_streams")
        assert int(refused.headers["Retry-After"]) >= 1
        stranger = await whole.client.join()
        mine = (await whole.client.call("POST", "/v1/chatroom", {}, token=stranger)).body["id"]
        async with listening(whole.service.url, mine, stranger):
            pass

    await until(nobody_listens, "the places free")
    async with listen(whole, room):
        pass


async def test_a_stream_ends_with_its_session(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_routes, "CHECK_SECONDS", 0.05)
    room = await whole.room()
    async with listen(whole, room) as listener:
        assert (await whole.client.post("logout")).status == 204
        assert await listener.rest() == []


async def test_a_stream_ends_when_its_token_does(whole: Whole, database_url: str, redis_url: str) -> None:
    chosen = settings(database_url, redis_url, GEMINI_ENDPOINT=whole.gemini.url, JWT_TTL_SECONDS="60")
    service = Service(dataclasses.replace(chosen, server_port=0, jwt_ttl_seconds=2), password_cost=CHEAP)
    await service.start()
    try:
        async with Client(service.url) as client:
            token = await client.join()
            room = (await client.call("POST", "/v1/chatroom", {}, token=token)).body["id"]
            async with listening(service.url, room, token) as listener:
                assert await listener.rest() == []
    finally:
        await service.stop(5)


async def test_a_stream_ends_when_its_room_is_deleted(whole: Whole) -> None:
    room, hold = await whole.room(), asyncio.Event()
    whole.gemini.default = Behaviour(hold=hold)
    async with listen(whole, room) as listener:
        await send(whole, room, "?")
        await listener.until("prompt.running")
        assert (await whole.client.call("DELETE", f"/v1/chatroom/{room}")).status == 204
        assert await listener.rest() == []
    hold.set()


async def test_a_stream_ends_when_the_process_shuts_down_and_goes_on_elsewhere(whole: Whole, second: Service) -> None:
    hold = asyncio.Event()
    whole.gemini.default = Behaviour(hold=hold, text="at last")
    room = await whole.room()
    async with listen(whole, room, at=second) as listener:
        await send(whole, room, "?")
        await listener.until("prompt.running")
        stopping = asyncio.create_task(second.stop(5))
        last = await listener.rest()
        assert "prompt.answered" not in names(last), "at the most it was given back and begun elsewhere"
        hold.set()
        await stopping
    async with listen(whole, room, listener.heard[-1].id) as again:
        events = await again.until("prompt.answered")
    assert text_of(events) == "at last"


async def test_a_client_that_reads_nothing_is_cut_off(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "STALL_SECONDS", 0.3)
    whole.gemini.default = Behaviour(text="🐢" * outcome.LONGEST_REPLY)
    room = await whole.room()
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, _, port = whole.service.url.removeprefix("http://").partition(":")
    narrow.connect((host, int(port)))
    reader, writer = await asyncio.open_connection(sock=narrow)
    head = f"GET /v1/chatroom/{room}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {whole.client.token}"
    writer.write(f"{head}\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    for number in range(12):
        await whole.ask(room, f"{number}")

    await until(nobody_listens, "the stream closed")
    writer.close()


async def test_a_quiet_stream_is_kept_alive(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_routes, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(event_routes, "BEAT_SECONDS", 0.1)
    room = await whole.room()
    async with listen(whole, room) as listener:
        line = b""
        async with asyncio.timeout(5):
            while not line.startswith(b":"):
                line = await listener.response.content.readline()


async def test_a_stream_counts_as_answered_when_it_begins(whole: Whole) -> None:
    room = await whole.room()
    route = "/v1/chatroom/{chatroom_id}/events"

    def counted() -> float:
        value = metrics.REGISTRY.get_sample_value(
            "gembackend_http_request_duration_seconds_count", {"method": "GET", "route": route, "status": "2xx"}
        )
        return value or 0.0

    before = counted()
    async with listen(whole, room) as listener:
        assert counted() == before + 1
        assert metrics.STREAMS_OPEN._value.get() == 1
        await send(whole, room, "?")
        await listener.until("prompt.answered")
        sent = counted()
    await until(nobody_listens, "the stream closed")
    assert (await whole.client.call("GET", "/v1/user/me")).status == 200
    assert counted() == sent == before + 1
    assert metrics.HTTP_IN_FLIGHT._value.get() == 0
    assert metrics.REGISTRY.get_sample_value("gembackend_gemini_first_token_seconds_count")


async def test_a_stream_ends_after_the_time_that_was_asked_for_with_all_that_is_known(whole: Whole) -> None:
    room = await whole.room()
    await whole.ask(room, "?")
    answer = await whole.client.call(
        "GET", f"/v1/chatroom/{room}/events", headers={"Prefer": "wait=0", "Last-Event-ID": "0-0"}
    )
    assert answer.headers["Preference-Applied"] == "wait=0"
    blocks = [block.splitlines() for block in answer.body.decode().split("\n\n")]
    assert [line for block in blocks for line in block if line.startswith("event: ")] == [
        f"event: {name}" for name in ANSWERED
    ]
    for block in blocks:
        fields = [line.partition(": ")[0] for line in block]
        assert fields in ([], [""], ["id", "event", "data"], ["retry", "id", "event", "data"]), "no field stands alone"
