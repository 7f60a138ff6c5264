"""Pages of long messages: bounded in bytes as well as in rows, and still every message once and in order."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from gembackend.messages import event_routes, store
from tests.rooms import fill
from tests.whole import Whole, whole_service

MIB = 2**20


@pytest.fixture
async def whole(database_url: str, redis_url: str) -> AsyncIterator[Whole]:
    async with whole_service(database_url, redis_url) as started:
        await started.make_pro()
        yield started


async def pages(whole: Whole, room: str, limit: int) -> AsyncIterator[list[Any]]:
    """The pages of a room's messages, one after the other."""
    cursor = None
    while True:
        path = f"/v1/chatroom/{room}/message/all?limit={limit}" + (f"&cursor={cursor}" if cursor else "")
        answer = await whole.client.call("GET", path)
        assert answer.status == 200, answer.body
        yield answer.body["messages"]
        cursor = answer.body["next_cursor"]
        if cursor is None:
            return


@pytest.mark.parametrize(
    ("letters", "limit", "rows"),
    [
        (100_000, 200, [10, 10, 10, 10]),
        (100_000, 4, [4] * 10),
        (524_288, 200, [2] * 20),
        (524_289, 200, [1] * 40),
        (1_048_577, 200, [1] * 40),
        (10, 200, [40]),
        (10, 40, [40]),
        (10, 39, [39, 1]),
    ],
)
async def test_a_page_ends_after_a_mebibyte_or_its_limit_and_the_next_goes_on_behind(
    whole: Whole, db: asyncpg.Connection, letters: int, limit: int, rows: list[int]
) -> None:
    room = await whole.room()
    await fill(db, room, 40, letters)
    got = [page async for page in pages(whole, room, limit)]
    assert [len(page) for page in got] == rows
    ids = "SELECT array_agg(id::text ORDER BY position) FROM chatrooms_messages WHERE chatroom_id = $1"
    assert [message["id"] for page in got for message in page] == await db.fetchval(ids, room)


async def test_pages_are_counted_in_bytes_and_not_in_characters(whole: Whole, db: asyncpg.Connection) -> None:
    room = await whole.room()
    await fill(db, room, 10, 1)
    await db.execute("UPDATE chatrooms_messages SET content = repeat('😀', 100000) WHERE chatroom_id = $1", room)
    got = [page async for page in pages(whole, room, 200)]
    assert [len(page) for page in got] == [2] * 5
    one_more = "UPDATE chatrooms_messages SET content = 'short' WHERE chatroom_id = $1 AND position = $2"
    await db.execute(one_more, room, 4)
    assert [len(page) async for page in pages(whole, room, 200)] == [3, 2, 2, 2, 1]


async def test_what_is_added_meanwhile_comes_behind(whole: Whole, db: asyncpg.Connection) -> None:
    room = await whole.room()
    await fill(db, room, 4, 600_000)
    got = []
    async for page in pages(whole, room, 200):
        got += page
        if len(got) == 3:
            await whole.ask(room, "one more")
    assert len(got) == 6 and got[4]["content"] == "one more"


async def test_a_long_story_is_read_in_bounded_pages_and_told_whole(
    whole: Whole, db: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, read, sizes = await whole.room(), store.story, []

    async def noted(*arguments: Any) -> Any:
        entries, more = await read(*arguments)
        sizes.append(sum(len(entry.prompt.reply.content) for entry in entries if entry.prompt.reply))
        return entries, more

    monkeypatch.setattr(event_routes.store, "story", noted)
    await fill(db, room, 40, 300_000)
    headers = {"Authorization": f"Bearer {whole.client.token}", "Last-Event-ID": "0-0", "Prefer": "wait=0"}
    async with asyncio.timeout(20), whole.client.http.get(f"/v1/chatroom/{room}/events", headers=headers) as response:
        text = (await response.read()).decode()
    answered = [block for block in text.split("\n\n") if "event: prompt.answered" in block]
    ids = [json.loads(block.partition("data: ")[2])["id"] for block in answered]
    told = "SELECT array_agg(id::text ORDER BY sequence) FROM prompts WHERE chatroom_id = $1"
    assert ids == await db.fetchval(told, room)
    assert len(ids) == 20 and max(sizes) <= MIB and len(sizes) >= 7
