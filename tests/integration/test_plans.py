"""No plan of a hot statement depends on statistics, which are old when a burst comes: each is counted by the pages of
the database that it touches, in tables that were filled after they had been analysed."""

import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from gembackend.chatrooms import store as chatrooms
from gembackend.live import store as live
from gembackend.messages import store as messages
from gembackend.messages.rules import NewPrompt
from gembackend.plumbing import pooler
from gembackend.plumbing.ids import new_id
from gembackend.prompts import cancel_store, finish_store, store, sweep_store
from gembackend.prompts.finish_store import Ending
from gembackend.quota import store as quota

ROOMS, EACH, LONG = 1500, 20, 10_000
BATCH = 64
PHONE = "+14155550100"


_QUEUED = """
    INSERT INTO prompts (id, user_id, chatroom_id, sequence, content, status, request_id, available_at)
    SELECT gen_random_uuid(), user_id, id, 1000 + n, 'hi', 'queued', 'test', now() - interval '1 minute'
    FROM chatrooms_metadata, generate_series(1, $1::integer) n WHERE name = 'new'
"""


class Counting:
    """A connection that runs each statement, counts the pages it touches, and gives what it gives."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self.pages = 0

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows."""
        await self._count(statement, arguments)
        return await self._connection.fetch(statement, *arguments)

    async def fetchrow(self, statement: str, *arguments: Any) -> asyncpg.Record | None:
        """The first row."""
        await self._count(statement, arguments)
        return await self._connection.fetchrow(statement, *arguments)

    async def fetchval(self, statement: str, *arguments: Any) -> Any:
        """The first column of the first row."""
        await self._count(statement, arguments)
        return await self._connection.fetchval(statement, *arguments)

    async def execute(self, statement: str) -> str:
        """A command that touches no page."""
        return await self._connection.execute(statement)

    async def _count(self, statement: str, arguments: tuple[Any, ...]) -> None:
        doing = self._connection.transaction()
        await doing.start()
        told = await self._connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *arguments)
        await doing.rollback()
        plan = json.loads(told)[0]["Plan"]
        self.pages += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


Work = Callable[[Any], Awaitable[object]]


@pytest.fixture(params=["analysed when it was empty", "analysed when everything was answered"])
async def burst(request: pytest.FixtureRequest, db: asyncpg.Connection) -> asyncpg.Connection:
    """A connection to a database with a burst of prompts that its statistics know nothing of."""
    await db.execute("INSERT INTO users (id, phone, password_hash) VALUES (gen_random_uuid(), $1, 'x')", PHONE)
    if "answered" in request.param:
        await _rooms(db, "old", 100)
        await db.execute(
            """
            INSERT INTO prompts (id, user_id, chatroom_id, sequence, content, status, request_id, finished_at)
            SELECT gen_random_uuid(), user_id, id, n, 'hi', 'answered', 'test', now()
            FROM chatrooms_metadata, generate_series(1, 200) n
            """
        )
    await db.execute("ANALYZE")
    await _rooms(db, "new", ROOMS)
    await _rooms(db, "long", 1)
    await db.execute(
        """
        INSERT INTO prompts (id, user_id, chatroom_id, sequence, content, status, request_id, available_at, charged_on)
        SELECT gen_random_uuid(), user_id, id, 1000 + n, 'hi', 'queued', 'test', now() - interval '1 minute',
               current_date
        FROM chatrooms_metadata, generate_series(1, $1::integer) n WHERE name = 'new'
        """,
        EACH,
    )
    await db.execute(
        """
        INSERT INTO prompt_usage SELECT id, current_date - n, 30000 FROM users, generate_series(0, 9) n;
        WITH others AS (
            INSERT INTO users (id, phone, password_hash) SELECT gen_random_uuid(), '+1555000' || n, 'x'
            FROM generate_series(1000, 2999) n RETURNING id
        )
        INSERT INTO prompt_usage SELECT id, current_date - n, 5 FROM others, generate_series(0, 9) n
        """
    )
    await db.execute(
        """
        WITH answered AS (
            INSERT INTO prompts (id, user_id, chatroom_id, sequence, content, status, request_id, finished_at)
            SELECT gen_random_uuid(), user_id, id, n, 'hi', 'answered', 'test', now()
            FROM chatrooms_metadata, generate_series(1, $1::integer) n WHERE name = 'long'
            RETURNING *
        )
        INSERT INTO chatrooms_messages (id, user_id, chatroom_id, prompt_id, position, role, content, created_at)
        SELECT gen_random_uuid()::text, user_id, chatroom_id, id, 2 * sequence, 'user', 'hi', now() FROM answered
        """,
        LONG,
    )
    return db


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_in_a_burst_no_hot_statement_touches_more_pages_than_its_result_needs(
    burst: asyncpg.Connection, mode: str
) -> None:
    await burst.execute(f"SET plan_cache_mode = {mode}")
    found = await burst.fetch("SELECT id FROM chatrooms_metadata WHERE name = 'new' LIMIT $1", 3 * BATCH)
    rooms, others, worse = ([row["id"] for row in found[n * BATCH : (n + 1) * BATCH]] for n in range(3))
    user_id = await burst.fetchval("SELECT id FROM users WHERE phone = $1", PHONE)
    claimed = await _claim(burst, rooms)
    assert len(claimed) == BATCH
    endings = [Ending(one.id, one.fence, "answered", response_id=str(one.id), reply="ho") for one in claimed]
    failures = [
        Ending(one.id, one.fence, "failed", error_code="x", error_message="x", counted="y" if number % 2 else None)
        for number, one in enumerate(await _claim(burst, worse))
    ]
    held = [(one.id, one.fence) for one in claimed]
    news = [NewPrompt(new_id(), user_id, room, "hi", f"key {room}", "test") for room in rooms]
    a_prompt = claimed[0].id
    long = await burst.fetchval("SELECT id FROM chatrooms_metadata WHERE name = 'long'")

    statements: dict[str, tuple[Work, int]] = {
        "claim": (lambda c: _claim(c, others), 50 * BATCH),
        "rooms with due heads": (lambda c: store.rooms_with_due_heads(c, others), 10 * BATCH),
        "finish": (lambda c: finish_store.finish(c, endings, 5), 150 * BATCH),
        "finish with failures": (lambda c: finish_store.finish(c, failures, 5), 150 * BATCH),
        "extend leases": (lambda c: store.extend_leases(c, held, 30), 50 * BATCH),
        "accept": (lambda c: store.accept(c, news, 1000, 1000, 1000), 150 * BATCH),
        "cancel": (lambda c: cancel_store.cancel(c, user_id, a_prompt), 150),
        "give back": (lambda c: quota.give_back(c, others), 50 * EACH * BATCH),
        "waiting rooms": (lambda c: sweep_store.waiting_rooms(c, 2.0, 1000), 5 * sweep_store.LOOKED_AT),
        "finished among": (lambda c: live.finished_among(c, [one.id for one in claimed]), 10 * BATCH),
        "room states": (lambda c: live.room_states(c, rooms), 50 * BATCH),
        "a prompt": (lambda c: messages.prompt(c, user_id, a_prompt), 50),
        "the latest exchange": (lambda c: messages.latest(c, user_id, long), 50),
        "a place in the story": (lambda c: messages.starting_place(c, user_id, long), 100),
        "the story": (lambda c: messages.story(c, user_id, long, 5000, 100), 1000),
        "a page of messages": (lambda c: messages.page(c, user_id, long, 5000, 50), 200),
        "a prompt to ask again": (lambda c: messages.to_regenerate(c, user_id, a_prompt, "key"), 100),
        "a page of rooms": (lambda c: chatrooms.page(c, user_id, None, 50), 200),
        "a room": (lambda c: chatrooms.detail(c, user_id, rooms[0]), 300),
    }
    touched = {}
    for name, (work, most) in statements.items():
        counting = Counting(burst)
        async with burst.transaction():
            await work(counting)
        touched[name] = (counting.pages, most)
    assert {name: pages for name, pages in touched.items() if pages[0] > pages[1]} == {}


async def test_no_plan_is_kept_from_when_the_tables_were_empty(db: asyncpg.Connection) -> None:
    statements = {
        "claim": lambda: _claim(db, rooms),
        "rooms with due heads": lambda: store.rooms_with_due_heads(db, rooms),
        "finish": lambda: finish_store.finish(db, endings, 5),
        "extend leases": lambda: store.extend_leases(db, held, 30),
        "accept": lambda: store.accept(db, news, 1000, 1000, 1000),
        "waiting rooms": lambda: sweep_store.waiting_rooms(db, 2.0, 1000),
        "finished among": lambda: live.finished_among(db, ids),
        "room states": lambda: live.room_states(db, rooms),
        "a prompt": lambda: messages.prompt(db, user_id, ids[0]),
        "the latest exchange": lambda: messages.latest(db, user_id, rooms[0]),
        "the story": lambda: messages.story(db, user_id, rooms[0], 0, 100),
        "a page of messages": lambda: messages.page(db, user_id, rooms[0], 0, 50),
        "a page of rooms": lambda: chatrooms.page(db, user_id, None, 50),
    }
    for name, value in pooler.SETTINGS.items():
        if not name.endswith("_timeout"):
            await db.execute(f"SET {name} = '{value}'")
    user_id = await db.fetchval(
        "INSERT INTO users (id, phone, password_hash) VALUES (gen_random_uuid(), '+14155550100', 'x') RETURNING id"
    )
    await db.execute("ANALYZE")
    rooms, ids = [new_id() for _ in range(BATCH)], [new_id() for _ in range(BATCH)]
    endings = [Ending(one, 1, "answered", response_id=str(one), reply="ho") for one in ids]
    held = [(one, 1) for one in ids]
    news = [NewPrompt(new_id(), user_id, room, "hi", f"key {room}", "test") for room in rooms]
    for _ in range(10):  # after five executions a plan may be kept
        for work in statements.values():
            async with db.transaction():
                await work()
    await _rooms(db, "new", ROOMS)
    await db.execute(_QUEUED, EACH)
    rooms = [row["id"] for row in await db.fetch("SELECT id FROM chatrooms_metadata LIMIT $1", BATCH)]
    claimed = await _claim(db, rooms)
    ids = [one.id for one in claimed]
    endings = [Ending(one, 1, "answered", response_id=str(one), reply="ho") for one in ids]
    held = [(one, 1) for one in ids]
    news = [NewPrompt(new_id(), user_id, room, "hi", f"key {room}", "test") for room in rooms]
    read = {}
    for name, work in statements.items():
        doing = db.transaction()
        await doing.start()
        before = await _rows_read(db)
        await work()
        read[name] = await _rows_read(db) - before
        await doing.rollback()
    most = {"waiting rooms": 3 * sweep_store.LOOKED_AT}
    assert {name: rows for name, rows in read.items() if rows > most.get(name, 100 * BATCH)} == {}


async def test_a_search_goes_on_behind_what_it_has_looked_at_until_it_has_seen_every_room(
    burst: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_store, "LOOKED_AT", 7000)
    await burst.execute("UPDATE prompts SET available_at = now() + interval '1 hour' WHERE sequence = 1001")
    late = await burst.fetchval("SELECT id FROM chatrooms_metadata WHERE name = 'new' ORDER BY id DESC LIMIT 1")
    await burst.execute("UPDATE prompts SET available_at = now() - interval '3 s' WHERE chatroom_id = $1", late)
    behind, found, searches = None, [], 0
    while not searches or behind:
        async with burst.transaction():
            result = await sweep_store.waiting_rooms(burst, 2.0, 10, behind)
        behind, searches = result.behind, searches + 1
        found += result.rooms
    assert [room for room, _since in found] == [late]
    assert searches > ROOMS * (EACH - 1) / 7000, "most of what waits stands behind a head that is not due"


async def _rooms(db: asyncpg.Connection, name: str, count: int) -> None:
    await db.execute(
        """
        INSERT INTO chatrooms_metadata (id, user_id, name, last_sequence)
        SELECT gen_random_uuid(), (SELECT id FROM users WHERE phone = $3), $1, 2000 FROM generate_series(1, $2::integer)
        """,
        name,
        count,
        PHONE,
    )


async def _claim(connection: Any, rooms: list[UUID]) -> list[store.Claimed]:
    return await store.claim(
        connection, rooms, lease_seconds=30, max_attempts=5, history_messages=20, suspects=1, owner="test"
    )


async def _rows_read(db: asyncpg.Connection) -> int:
    """How many rows the transaction has read so far, in whatever way."""
    return int(
        await db.fetchval(
            "SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint FROM pg_stat_xact_user_tables"
        )
    )
