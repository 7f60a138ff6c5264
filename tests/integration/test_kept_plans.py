"""No session keeps a plan from when there was nothing: made for empty tables, it goes through full ones row by row,
until somebody analyses them."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg

from gembackend.messages import search_index_store as index
from gembackend.messages.rules import NewPrompt
from gembackend.messages.search_index_store import Queued
from gembackend.plumbing.ids import new_id
from gembackend.plumbing.postgres import Database
from gembackend.prompts import finish_store, store, sweep_store
from gembackend.prompts.finish_store import Ending
from tests.searching import opened

ROOMS, EACH, BATCH = 300, 20, 64


async def test_a_session_from_before_a_burst_reads_no_more_rows_than_one_from_after_it(
    db: asyncpg.Connection, database_url: str
) -> None:
    user: UUID = await db.fetchval(
        "INSERT INTO users (id, phone, password_hash) VALUES (gen_random_uuid(), '+14155550100', 'x') RETURNING id"
    )
    await db.execute("ANALYZE")
    async with opened(database_url, size=1) as early, opened(database_url, size=1) as late:
        first = await _rooms(db, user, 1)
        for _ in range(8):  # after five executions a plan may be kept
            await _read(early, lambda connection: _work(connection, user, first))
        rooms = await _rooms(db, user, ROOMS)
        await db.execute(
            """
            INSERT INTO prompts (id, user_id, chatroom_id, sequence, content, status, request_id, available_at)
            SELECT gen_random_uuid(), user_id, id, n, 'hi', 'queued', 'test', now() - interval '1 minute'
            FROM chatrooms_metadata, generate_series(1, $1::integer) n
            """,
            EACH,
        )
        await db.execute("INSERT INTO search_queue SELECT user_id, id, now() FROM prompts")
        fresh = await _read(late, lambda connection: _work(connection, user, rooms[:BATCH]))
        kept = await _read(early, lambda connection: _work(connection, user, rooms[:BATCH]))
    assert fresh > BATCH
    assert kept < 2 * fresh


async def _rooms(db: asyncpg.Connection, user: UUID, count: int) -> list[UUID]:
    rows = await db.fetch(
        """
        INSERT INTO chatrooms_metadata (id, user_id, name, last_sequence)
        SELECT gen_random_uuid(), $1, 'room', 1000 FROM generate_series(1, $2::integer) RETURNING id
        """,
        user,
        count,
    )
    return [row["id"] for row in rows]


async def _work(connection: Any, user: UUID, rooms: list[UUID]) -> None:
    """What the engine and the search's index do, room by room at the same time."""
    news = [NewPrompt(new_id(), user, room, "hi", None, "test") for room in rooms]
    await store.accept(connection, news, 100_000, 100_000, 100_000)
    await sweep_store.waiting_rooms(connection, 0.0, 1000)
    await store.rooms_with_due_heads(connection, rooms)
    claimed = await store.claim(
        connection, rooms, lease_seconds=30, max_attempts=5, history_messages=20, suspects=1, owner="test"
    )
    assert len(claimed) == len(rooms)
    await store.extend_leases(connection, [(one.id, one.fence) for one in claimed], 30)
    endings = [Ending(one.id, one.fence, "answered", response_id=str(one.id), reply="ho") for one in claimed]
    assert len((await finish_store.finish(connection, endings, 5)).changed) == len(rooms)
    await index.done(connection, [Queued(user, one.id, (), 0) for one in claimed])


async def _read(database: Database, work: Callable[[Any], Awaitable[None]]) -> int:
    """How many rows some work reads, which is undone."""
    async with database.connection() as connection:
        doing = connection.transaction()
        await doing.start()
        before = await _rows_read(connection)
        await work(connection)
        rows = await _rows_read(connection) - before
        await doing.rollback()
        return rows


async def _rows_read(connection: Any) -> int:
    return int(await connection.fetchval("SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_user_tables"))
