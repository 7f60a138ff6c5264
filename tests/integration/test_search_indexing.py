"""How messages come into the search: each once, whatever happens meanwhile, and out of it again."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import pytest

from gembackend.messages import search_index_store as store
from gembackend.messages import search_indexer as indexing
from gembackend.messages.search import search
from gembackend.messages.search_indexer import SearchIndexer
from gembackend.plumbing import metrics
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database
from tests.processes import ROOT, until
from tests.searching import index, indexed, make_room, opened, owner, say, stored, waiting

INDEXER = """
import asyncio, sys
from gembackend.messages.search_indexer import SearchIndexer
from gembackend.plumbing.postgres import Database

async def main():
    database = Database(sys.argv[1], 1)
    await database.open()
    indexer = SearchIndexer(database)
    print("ready", flush=True)
    while True:
        await indexer.run_once()

asyncio.run(main())
"""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as made:
        yield made


async def test_each_message_is_there_once_though_indexers_are_killed_in_the_middle(
    db: asyncpg.Connection, database: Database, database_url: str
) -> None:
    def started() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", INDEXER, database_url], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )

    rooms = [await make_room(db) for _ in range(4)]
    running = [started(), started()]
    try:
        for round_ in range(4):
            victim = running.pop(0)
            assert victim.stdout is not None
            assert await asyncio.to_thread(victim.stdout.readline) == "ready\n"
            before = len(await indexed(db))
            for room in rooms:
                await say(db, room, [f"word {round_} {number}" for number in range(150)])

            async def begun(before: int = before) -> bool:
                return len(await indexed(db)) > before

            await until(begun, "indexing has begun")
            victim.kill()
            victim.communicate()
            running.append(started())
    finally:
        for process in running:
            process.kill()
            process.communicate()

    async def caught_up() -> bool:
        await index(database)  # the transactions of the dead may take a moment to be ended
        return not await waiting(db)

    await until(caught_up, "everything is indexed")
    assert len(await stored(db)) == 4 * 4 * 150
    assert await indexed(db) == await stored(db)


async def test_a_batch_whose_connection_is_lost_is_done_by_the_next_turn(
    db: asyncpg.Connection, database: Database, database_url: str
) -> None:
    room = await make_room(db)
    await say(db, room, ["one word", "another word"])
    blocker = await asyncpg.connect(database_url)
    await blocker.execute("BEGIN; LOCK search_recent IN EXCLUSIVE MODE")
    turn = asyncio.create_task(index(database))

    async def stuck() -> int | None:
        query = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'search_recent'::regclass"
        pid: int | None = await db.fetchval(query)
        return pid

    await db.execute("SELECT pg_terminate_backend($1)", await until(stuck, "the batch waits for the lock"))
    with pytest.raises(Fault, match="database"):
        await turn
    await blocker.close()
    assert (await waiting(db), await indexed(db)) == (2, [])
    assert await index(database) == 2
    assert (await waiting(db), await indexed(db)) == (0, await stored(db))


@pytest.mark.parametrize("refusal", ["raise_exception", "query_canceled"])
async def test_a_message_that_cannot_be_indexed_does_not_keep_the_others_out(
    db: asyncpg.Connection, database: Database, refusal: str
) -> None:
    await db.execute(
        f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{refusal}'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON search_recent
            FOR EACH ROW WHEN (NEW.words LIKE '%poison%') EXECUTE FUNCTION refuse();
        """
    )
    room = await make_room(db)
    await say(db, room, ["poison" if number in (5, 40, 77) else f"word {number}" for number in range(80)])
    indexer = SearchIndexer(database)

    async def all_others() -> bool:
        with suppress(Fault, asyncpg.PostgresError):
            await indexer.run_once()
        return await waiting(db) == 3

    await until(all_others, "all others are indexed")
    await say(db, room, ["said afterwards"])

    async def found_too() -> bool:
        with suppress(Fault, asyncpg.PostgresError):
            await indexer.run_once()
        return len(await indexed(db)) == 78

    await until(found_too, "what is said afterwards is indexed as well")
    await db.execute("DROP TRIGGER refuse ON search_recent")

    async def everything() -> bool:
        with suppress(Fault, asyncpg.PostgresError):
            await indexer.run_once()
        return not await waiting(db)

    await until(everything, "in the end all are indexed")
    assert await indexed(db) == await stored(db)


async def test_a_message_whose_transaction_ends_late_is_not_missed(
    db: asyncpg.Connection, database: Database, database_url: str
) -> None:
    room, other = await make_room(db), await make_room(db)
    late = await asyncpg.connect(database_url)
    await late.execute("BEGIN")
    await say(late, room, ["said early"])
    await say(db, other, ["said later"])
    assert await index(database) == 1
    await late.execute("COMMIT")
    await late.close()
    assert await index(database) == 1
    assert await indexed(db) == await stored(db)


async def test_several_indexers_side_by_side_do_not_do_the_same_twice(
    db: asyncpg.Connection, database_url: str
) -> None:
    rooms = [await make_room(db) for _ in range(3)]
    for room in rooms:
        await say(db, room, [f"word {number}" for number in range(200)])
    async with opened(database_url) as one, opened(database_url) as other:
        while await waiting(db):
            counts = await asyncio.gather(index(one), index(other))
            assert sum(counts) <= 600
    assert await indexed(db) == await stored(db)


async def test_a_room_that_is_being_deleted_holds_nobody_up(
    db: asyncpg.Connection, database: Database, database_url: str
) -> None:
    room, other = await make_room(db), await make_room(db)
    await say(db, room, ["going"])
    await say(db, other, ["staying"])
    deleter = await asyncpg.connect(database_url)
    await deleter.execute("BEGIN")
    await deleter.execute("DELETE FROM chatrooms_metadata WHERE id = $1", room)
    assert await index(database) == 1
    assert await waiting(db) == 1
    await deleter.execute("COMMIT")
    await deleter.close()
    await index(database)
    assert (await waiting(db), await indexed(db)) == (0, await stored(db))


async def test_a_backlog_is_worked_off_newest_first_and_told(
    db: asyncpg.Connection, database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await make_room(db)
    user = await owner(db, room)
    await say(db, room, [f"word {number}" for number in range(20)])
    await db.execute("UPDATE search_queue SET queued_at = now() - interval '10 minutes'")
    leader = await asyncpg.connect(database_url)
    await leader.execute("BEGIN")
    assert await store.lead(leader)
    indexer = SearchIndexer(database)
    assert await indexer.run_once() == 0
    assert metrics.REGISTRY.get_sample_value("gembackend_search_backlog") == 20
    assert (metrics.REGISTRY.get_sample_value("gembackend_search_oldest_age_seconds") or 0) >= 600
    await leader.execute("ROLLBACK")
    await leader.close()
    monkeypatch.setattr(indexing, "BATCH", 5)
    indexer = SearchIndexer(database)
    async with database.connection() as connection:
        assert await indexer.batch(connection) == 5
    answer = await search(db, user, "word", None, 50)
    assert ([message.content for message in answer.messages], answer.complete) == (
        [f"word {number}" for number in (19, 18, 17, 16, 15)],
        False,
    )
    assert await indexer.run_once() == 15
    assert (await search(db, user, "word", None, 50)).complete


async def test_a_long_queue_leaves_a_pool_of_one_connection_to_the_others(
    db: asyncpg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "BATCH", 1)
    await say(db, await make_room(db), [f"word {number}" for number in range(100)])
    database = Database(database_url, 1)
    await database.open()
    indexer = SearchIndexer(database)
    turn = asyncio.create_task(indexer.run_once())
    served = 0
    while not turn.done():
        await database.ping()
        served += 1
    assert (await turn, await waiting(db)) == (100, 0)
    assert served >= 50
    await database.close()


async def test_whoever_waits_for_the_index_is_told_as_soon_as_it_was_looked_into(
    db: asyncpg.Connection, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "INTERVAL_SECONDS", 3600.0)
    room = await make_room(db)
    indexer = SearchIndexer(database)
    indexer.start()
    await indexer.started()
    await indexer.look(20)
    await say(db, room, ["word"])
    await indexer.look(20)
    assert await indexed(db) == await stored(db)
    await indexer.stop(5)


async def test_a_process_that_is_frozen_in_the_middle_is_passed_over(
    db: asyncpg.Connection, database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PATIENCE_SECONDS", 0.2)
    await say(db, await make_room(db), ["word"])
    frozen = await asyncpg.connect(database_url)
    await frozen.execute("BEGIN")
    assert await store.lead(frozen)

    async def indexed_by_another() -> bool:
        return await index(database) == 1

    await until(indexed_by_another, "another process indexes")
    frozen.terminate()
