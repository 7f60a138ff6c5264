"""Deleting what is large: in nobody's way, in statements of which each is short, all or nothing."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

from gembackend.chatrooms import store as chatrooms
from gembackend.plumbing import postgres
from gembackend.prompts import finish_store
from gembackend.prompts.finish_store import Ending
from gembackend.users import removal_store
from gembackend.users import store as users
from gembackend.users.store import Account
from tests.engine import Engine, running
from tests.faults import claim, queued, somebody_waits
from tests.processes import until
from tests.whole import whole_service

PROMPTS = 3000


@pytest.fixture
async def idle(database_url: str, redis_url: str) -> AsyncIterator[Engine]:
    """An engine whose actors have stopped: nothing happens but what the test does."""
    async with running(database_url, redis_url) as engine:
        for actor in reversed(engine.engine.actors):
            await actor.stop(1)
        yield engine


async def filled(db: asyncpg.Connection, room: tuple[UUID, UUID], prompts: int = PROMPTS) -> None:
    """As if so many prompts had been answered in the room."""
    await db.execute(
        """
        WITH answered AS (
            INSERT INTO prompts (id, user_id, chatroom_id, sequence, content, status, request_id, finished_at)
            SELECT gen_random_uuid(), $1, $2, n, 'hi', 'answered', 'test', now() FROM generate_series(1, $3::integer) n
            RETURNING *
        ), numbered AS (
            UPDATE chatrooms_metadata SET last_sequence = $3 WHERE id = $2
        )
        INSERT INTO chatrooms_messages (id, user_id, chatroom_id, prompt_id, position, role, content, created_at)
        SELECT gen_random_uuid()::text, user_id, chatroom_id, id, 2 * sequence + place, role, 'hi', now()
        FROM answered, (VALUES (0, 'user'), (1, 'assistant')) side (place, role)
        """,
        *room,
        prompts,
    )


async def delete(engine: Engine, room: tuple[UUID, UUID], what: str) -> list[UUID] | None:
    """Delete the room or the whole account: which prompts had not finished."""
    async with engine.database.transaction() as connection:
        if what == "room":
            return await chatrooms.delete(connection, *room)
        left = await users.delete(connection, Account(room[0], "", "x"), b"name")
        return left and left.prompt_ids


@pytest.mark.parametrize("what", ["room", "account"])
async def test_while_a_large_room_goes_prompts_are_accepted_claimed_and_stored_even_there(
    idle: Engine, db: asyncpg.Connection, what: str
) -> None:
    room = await idle.room()
    await filled(db, room, 10)
    running_one = await queued(idle, room, "runs")
    (claimed,) = await claim(db, room[1])
    answer = Ending(claimed.id, claimed.fence, "answered", response_id="r", reply="ho")
    async with db.transaction():
        await db.execute("SELECT FROM chatrooms_messages WHERE position = 12 FOR UPDATE")
        deleting = asyncio.create_task(delete(idle, room, what))
        await somebody_waits(idle)
        async with idle.database.connection() as other:
            assert (await finish_store.finish(other, [answer], 5)).changed == {running_one}
        behind = await queued(idle, room, "behind")
    assert await deleting == [behind]
    for table in ("prompts", "chatrooms_messages", "chatrooms_metadata"):
        assert await db.fetchval(f"SELECT count(*) FROM {table}") == 0


@pytest.mark.parametrize("what", ["room", "account"])
async def test_each_statement_of_a_deletion_is_short_however_large_the_room_is(
    idle: Engine, db: asyncpg.Connection, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, other = await idle.room(), await idle.room()
    await filled(db, room)
    await filled(db, other, 3)
    monkeypatch.setattr(removal_store, "PROMPTS_IN_A_STATEMENT", PROMPTS // 10)
    await db.execute(
        """
        CREATE TABLE gone (prompts bigint);
        CREATE FUNCTION count_gone() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO gone SELECT count(*) FROM old_rows HAVING count(*) > 1;
            RETURN NULL;
        END $$;
        CREATE TRIGGER gone AFTER DELETE ON prompts REFERENCING OLD TABLE AS old_rows
            FOR EACH STATEMENT EXECUTE FUNCTION count_gone()
        """
    )
    assert await delete(idle, room, what) == []
    assert await db.fetchval("SELECT max(prompts) FROM gone") <= PROMPTS // 10
    assert await db.fetchval("SELECT sum(prompts) FROM gone") >= PROMPTS - 1
    assert await db.fetchval("SELECT count(*) FROM chatrooms_messages") == 6, "another's are as they were"


async def test_a_deletion_that_is_given_up_has_deleted_nothing(idle: Engine, db: asyncpg.Connection) -> None:
    room = await idle.room()
    await filled(db, room, 10)
    async with db.transaction():
        await db.execute("SELECT FROM chatrooms_metadata FOR UPDATE")
        with pytest.raises(postgres.DatabaseAway):
            await delete(idle, room, "room")
    assert await db.fetchval("SELECT count(*) FROM chatrooms_messages") == 20
    assert await delete(idle, room, "room") == []
    assert await db.fetchval("SELECT count(*) FROM prompts") == 0


async def test_deletions_that_take_long_leave_the_pool_to_others(
    database_url: str, redis_url: str, db: asyncpg.Connection
) -> None:
    async with whole_service(database_url, redis_url, DATABASE_POOL_SIZE="6") as whole:
        rooms = [await whole.room() for _ in range(12)]

        async def deleted(room: str) -> int:
            return (await whole.client.call("DELETE", f"/v1/chatroom/{room}")).status

        async with db.transaction():
            await db.execute("LOCK TABLE chatrooms_messages IN EXCLUSIVE MODE")
            deleting = [asyncio.create_task(deleted(room)) for room in rooms]
            await until(lambda: _waits(db), "a deletion that waits")
            for _ in range(10):
                assert (await whole.client.call("GET", "/v1/chatroom")).status == 200
            assert not all(task.done() for task in deleting), "they were under way all the while"
        statuses = await asyncio.gather(*deleting)
        left = {row["id"] for row in await db.fetch("SELECT id::text FROM chatrooms_metadata")}
        assert left == {room for room, status in zip(rooms, statuses, strict=True) if status != 204}
        assert set(statuses) <= {204, 503}


async def _waits(db: asyncpg.Connection) -> bool:
    return bool(await db.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
