"""What is given up here is given up in the server too: however long a lock is held, backends do not pile up, and a
503 means that nothing has happened."""

import asyncio

import asyncpg
import pytest

from gembackend.plumbing import pooler
from gembackend.plumbing.postgres import Database, DatabaseAway
from tests.accounts import new_phone
from tests.processes import until
from tests.whole import whole_service

POOL = 4
_BACKENDS = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'gembackend' AND datname = current_database()"
)


async def test_behind_a_lock_that_is_held_for_long_there_are_no_more_backends_than_the_pool_has(
    database_url: str, redis_url: str, db: asyncpg.Connection
) -> None:
    async with whole_service(database_url, redis_url, DATABASE_POOL_SIZE=str(POOL)) as whole:
        most, over = 0, asyncio.Event()

        async def count() -> None:
            nonlocal most
            while not over.is_set():
                most = max(most, await db.fetchval(_BACKENDS))

        async def rename() -> int:
            return (await whole.client.call("PATCH", "/v1/user/me", {"name": "another"})).status

        locking = await asyncpg.connect(database_url)
        async with locking.transaction():
            await locking.execute("SELECT FROM users FOR UPDATE")
            counting = asyncio.create_task(count())
            statuses = [status for _ in range(3) for status in await asyncio.gather(*(rename() for _ in range(12)))]
        over.set()
        await counting
        assert set(statuses) == {503}
        assert await db.fetchval("SELECT count(*) FROM users WHERE name = 'another'") == 0, "a 503: nothing happened"
        assert most <= POOL
        await until(lambda: _renamed(rename), "the service goes on")
        await locking.close()


async def test_a_statement_that_is_cancelled_keeps_its_place_until_the_server_has_let_go_of_it(
    direct_url: str, db: asyncpg.Connection
) -> None:
    database = Database(direct_url, 2)
    await database.open()

    async def slow() -> None:
        async with database.connection() as connection:
            await connection.execute("SELECT pg_sleep(60)")

    most = 0
    for _ in range(12):
        tasks = [asyncio.create_task(slow()) for _ in range(4)]
        await asyncio.wait(tasks, timeout=0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        most = max(most, await db.fetchval(_BACKENDS))
    assert most <= 2
    await until(lambda: _nobody(db), "the server rid of them")
    await database.close()


async def test_a_process_that_stands_still_inside_a_transaction_does_not_keep_its_locks(
    database_url: str, db: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pooler.SETTINGS["idle_in_transaction_session_timeout"] == "5s"
    monkeypatch.setattr(pooler, "_SET", pooler._SET.replace("'5s'", "'200ms'"))
    await db.execute("INSERT INTO users (id, phone, password_hash) VALUES (gen_random_uuid(), $1, 'x')", new_phone())
    database = Database(database_url, 1)
    await database.open()

    async def stand() -> None:
        async with database.transaction() as standing:
            await standing.execute("SELECT FROM users FOR UPDATE")
            async with asyncio.timeout(10):
                await db.execute("UPDATE users SET name = 'free again'")
            await standing.execute("UPDATE users SET name = 'too late'")

    with pytest.raises(DatabaseAway):
        await stand()
    assert await db.fetchval("SELECT name FROM users") == "free again"
    await database.close()


async def _renamed(rename: object) -> bool:
    return bool(await rename() == 200)  # type: ignore[operator]


async def _nobody(db: asyncpg.Connection) -> bool:
    return bool(await db.fetchval(_BACKENDS + " AND state = 'active'") == 0)
