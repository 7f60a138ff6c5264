"""A whole room as one document."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import msgspec
import pytest

from gembackend.embedded.gemini import Behaviour
from gembackend.messages import export
from gembackend.messages.models import RoomExport
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.metrics import HTTP_IN_FLIGHT
from gembackend.plumbing.postgres import Database
from gembackend.web import flow
from tests.processes import until
from tests.rooms import fill
from tests.whole import Whole, whole_service


@pytest.fixture
async def whole(database_url: str, redis_url: str) -> AsyncIterator[Whole]:
    async with whole_service(database_url, redis_url) as started:
        await started.make_pro()
        yield started


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url, 2)
    await opened.open()
    yield opened
    await opened.close()


async def pieces(database: Database, db: asyncpg.Connection, room: str) -> AsyncIterator[bytes]:
    """The pieces of an export, without HTTP."""
    owner = await db.fetchval("SELECT user_id FROM chatrooms_metadata WHERE id = $1", room)
    async for piece in export.pieces(database, owner, UUID(room)):
        yield piece


@pytest.mark.pooled
async def test_the_document_has_everything(whole: Whole) -> None:
    room, gate = await whole.room('Ünïcode "quoted"'), asyncio.Event()
    whole.gemini.script(
        Behaviour(), Behaviour(finish_reason="SAFETY"), Behaviour(text='say "é" \\ \n 😀'), Behaviour(hold=gate)
    )
    first, failed, last = [await whole.ask(room, text) for text in ("one", "two", "three")]
    path = f"/v1/chatroom/{room}/message"
    running, taken_back, queued = [
        (await whole.client.call("POST", path, {"prompt": text})).body for text in ("four", "five", "six")
    ]
    await whole.gemini.wait_for_calls(4)
    taken_back = (await whole.client.call("DELETE", f"/v1/prompt/{taken_back['id']}")).body
    answer = await whole.client.call("GET", f"/v1/chatroom/{room}/export")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="chatroom-{room}.json"'
    assert answer.headers["Transfer-Encoding"] == "chunked"
    detail = (await whole.client.call("GET", f"/v1/chatroom/{room}")).body
    assert answer.body["chatroom"] == {key: detail[key] for key in ("id", "name", "created_at", "updated_at")}
    assert answer.body["exported_at"] > last["finished_at"]
    assert answer.body["messages"] == (await whole.client.call("GET", f"{path}/all")).body["messages"]
    assert [message["prompt_id"] for message in answer.body["messages"][::2]] == [first["id"], last["id"]]
    running = (await whole.client.call("GET", f"/v1/prompt/{running['id']}")).body
    assert running["status"] == "running"
    assert answer.body["unanswered"] == [failed, running, taken_back, queued]
    gate.set()


async def test_an_empty_room_is_a_document_too(whole: Whole) -> None:
    answer = await whole.client.call("GET", f"/v1/chatroom/{await whole.room()}/export")
    assert (answer.body["messages"], answer.body["unanswered"]) == ([], [])


async def test_what_is_someone_elses_or_nobodys_is_not_found(whole: Whole) -> None:
    room = await whole.room()
    whole.client.token = await whole.client.join()
    for wanted in (room, "01a20454-44a5-71c7-8f49-2353c39fef8a", "7"):
        answer = await whole.client.call("GET", f"/v1/chatroom/{wanted}/export")
        assert (answer.status, answer.code, answer.body["detail"]) == (404, "not_found", "There is no such chatroom.")
        assert "Content-Disposition" not in answer.headers


@pytest.mark.parametrize("messages", [98, 100, 5000])
async def test_a_large_room_is_whole_and_in_order(whole: Whole, db: asyncpg.Connection, messages: int) -> None:
    room = await whole.room()
    await fill(db, room, messages, 10)
    answer = await whole.client.call("GET", f"/v1/chatroom/{room}/export")
    ids = "SELECT array_agg(id::text ORDER BY position) FROM chatrooms_messages WHERE chatroom_id = $1"
    assert [message["id"] for message in answer.body["messages"]] == await db.fetchval(ids, room)
    assert len(answer.body["messages"]) == messages
    texts = [prompt["prompt"] for prompt in answer.body["unanswered"]]
    assert texts == [f"prompt {number}" for number in range(51, messages // 2 * 51 // 50 + 1, 51)]


@pytest.mark.pooled
async def test_it_is_one_moments_room(whole: Whole, database: Database, db: asyncpg.Connection) -> None:
    room, gate = await whole.room(), asyncio.Event()
    await whole.ask(room, "before")
    whole.gemini.script(Behaviour(hold=gate))
    running = (await whole.client.call("POST", f"/v1/chatroom/{room}/message", {"prompt": "meanwhile"})).body
    await whole.gemini.wait_for_calls(2)
    queued = (await whole.client.call("POST", f"/v1/chatroom/{room}/message", {"prompt": "to be cancelled"})).body
    exporting = pieces(database, db, room)
    document = [await anext(exporting)]
    gate.set()
    await whole.client.call("GET", f"/v1/prompt/{running['id']}", headers={"Prefer": "wait=20"})
    await whole.client.call("DELETE", f"/v1/prompt/{queued['id']}")
    await whole.ask(room, "afterwards")
    document += [piece async for piece in exporting]
    exported = json.loads(b"".join(document))
    assert [message["content"] for message in exported["messages"][::2]] == ["before"]
    assert [(prompt["prompt"], prompt["status"]) for prompt in exported["unanswered"]] == [
        ("meanwhile", "running"),
        ("to be cancelled", "queued"),
    ]


@pytest.mark.pooled
async def test_what_ends_in_an_older_transaction_is_not_told_twice(
    whole: Whole, database: Database, db: asyncpg.Connection
) -> None:
    room, gate = await whole.room(), asyncio.Event()
    whole.gemini.script(Behaviour(hold=gate))
    sent = await whole.client.call("POST", f"/v1/chatroom/{room}/message", {"prompt": "hm"})
    await whole.gemini.wait_for_calls(1)
    transaction = db.transaction()
    await transaction.start()
    await db.execute(
        "UPDATE prompts SET status = 'cancelled', finished_at = now(), lease_until = NULL WHERE id = $1",
        sent.body["id"],
    )
    other = await asyncpg.connect(dsn=whole.service._settings.database_url)
    exporting = pieces(database, other, room)
    document = [await anext(exporting)]
    await transaction.commit()
    document += [piece async for piece in exporting]
    assert [prompt["status"] for prompt in json.loads(b"".join(document))["unanswered"]] == ["running"]
    await other.close()
    gate.set()


async def test_a_room_that_is_deleted_meanwhile_never_looks_whole(
    whole: Whole, database: Database, db: asyncpg.Connection
) -> None:
    for messages, seen in ((0, 1), (0, 2), (300, 1), (300, 2), (300, 4), (300, 6)):
        room = await whole.room()
        await fill(db, room, messages, 10)
        exporting = pieces(database, db, room)
        for _ in range(seen):
            await anext(exporting)
        assert (await whole.client.call("DELETE", f"/v1/chatroom/{room}")).status == 204
        with pytest.raises(Fault) as refusal:
            _ = [piece async for piece in exporting]
        assert refusal.value.code.name == "not_found"


async def test_memory_does_not_grow_with_the_room(whole: Whole, database: Database, db: asyncpg.Connection) -> None:
    room = await whole.room()
    await fill(db, room, 4000, 5000)
    length = 0
    tracemalloc.start()
    try:
        async for piece in pieces(database, db, room):
            length += len(piece)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert length > 20_000_000
    assert most < 5_000_000


async def test_memory_does_not_grow_with_its_messages(whole: Whole, database: Database, db: asyncpg.Connection) -> None:
    room, length = await whole.room(), 0
    await fill(db, room, 100, 500_000)
    tracemalloc.start()
    try:
        async for piece in pieces(database, db, room):
            length += len(piece)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert length > 50_000_000
    assert most < 12_000_000


async def begun(whole: Whole, room: str) -> aiohttp.ClientResponse:
    """An export of which the client has read the beginning."""
    headers = {"Authorization": f"Bearer {whole.client.token}"}
    response = await whole.client.http.get(f"/v1/chatroom/{room}/export", headers=headers)
    assert (await response.content.readany()).startswith(b'{"chatroom":{')
    return response


async def at_work() -> float:
    """How many requests are in flight."""
    return next(iter(HTTP_IN_FLIGHT.collect())).samples[0].value


async def test_a_client_that_does_not_read_holds_no_connection_and_is_cut_off(
    whole: Whole, db: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    room = await whole.room()
    await fill(db, room, 6000, 8000)
    response = await begun(whole, room)

    async def stands_still() -> bool:
        return response.content._protocol._reading_paused and whole.service.database.usage()[0] == 0

    await until(stands_still, "held up by the client, and no connection taken")
    assert await at_work() == 1
    response.close()
    await until(gone(0), "the handler of a client that left is over")
    monkeypatch.setattr(flow, "STALL_SECONDS", 0.3)
    response = await begun(whole, room)
    await until(gone(0), "the handler of a client that does not read is over")
    with pytest.raises(aiohttp.ClientPayloadError):
        await response.read()
    said = capsys.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if "/export" in line]
    assert len(lines) == 2 and all("499" in line for line in lines), lines
    assert "unexpected_error" not in said.out + said.err


def gone(wanted: float) -> Callable[[], Awaitable[bool]]:
    """Whether so many requests are in flight."""

    async def asked() -> bool:
        return await at_work() == wanted

    return asked


@pytest.mark.pooled
async def test_a_database_that_goes_away_half_way_breaks_the_transfer(whole: Whole, db: asyncpg.Connection) -> None:
    room = await whole.room()
    await fill(db, room, 6000, 8000)
    response = await begun(whole, room)
    await whole.service.database.close()
    with pytest.raises(aiohttp.ClientPayloadError):
        await response.read()
    await whole.service.database.open()
    again = await whole.client.call("GET", f"/v1/chatroom/{room}/export")
    document: Any = msgspec.convert(again.body, RoomExport)
    assert len(document.messages) == 6000


async def test_a_database_that_is_away_from_the_start_is_a_503(whole: Whole) -> None:
    room = await whole.room()
    await whole.service.database.close()
    answer = await whole.client.call("GET", f"/v1/chatroom/{room}/export")
    assert (answer.status, answer.code) == (503, "database_unavailable")
    await whole.service.database.open()
