"""The steps that bring the search, taken while processes of the version before go on and transactions are open."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from gembackend.embedded.postgres import MIGRATE
from gembackend.messages.search import search
from tests.migration.snapshot import SNAPSHOT, dump
from tests.migration.test_migrate import migrate, psql, versions
from tests.processes import until
from tests.searching import index, indexed, opened, stored

MESSAGES = 2000


Start = Callable[[], subprocess.Popen[str]]


def script_up_to(version: int, directory: Path) -> Path:
    """A copy of the migrations that ends with a version."""
    script = Path(shutil.copytree(MIGRATE.parent, directory / f"sql{version}")) / "migrate.sql"
    steps = re.compile(r"SELECT NOT EXISTS .* version = (\d+)\)(?:.|\n)*?\\endif\n")
    script.write_text(steps.sub(lambda step: step[0] if int(step[1]) <= version else "", script.read_text()))
    return script


@pytest.fixture
def started(empty_database_url: str, tmp_path: Path) -> Iterator[Start]:
    """Starts a migration to version 5; one that still runs at the end of the test is ended."""
    processes: list[subprocess.Popen[str]] = []
    script = script_up_to(5, tmp_path)

    def start() -> subprocess.Popen[str]:
        processes.append(psql(empty_database_url, script))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
async def old(empty_database_url: str, tmp_path: Path) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database of version 4 with messages in it."""
    status, said = migrate(empty_database_url, script_up_to(4, tmp_path))
    assert status == 0, said
    assert await versions(empty_database_url) == [1, 2, 3, 4]
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute(
        """
        INSERT INTO users (id, phone, password_hash) SELECT md5('user')::uuid, '+15550001111', 'x';
        INSERT INTO chatrooms_metadata (id, user_id, name) SELECT md5('room')::uuid, md5('user')::uuid, 'room';
        """
    )
    for number in range(MESSAGES):
        await say(connection, number)
    yield connection
    await connection.close()


async def say(connection: asyncpg.Connection, number: int) -> None:
    """Store a message as version 4 does."""
    await connection.execute(
        """
        WITH prompt AS (
            INSERT INTO prompts (id, user_id, chatroom_id, sequence, content, status, request_id, finished_at)
            SELECT gen_random_uuid(), user_id, id, $1, 'q', 'answered', 'test', now() FROM chatrooms_metadata
            RETURNING id, chatroom_id
        )
        INSERT INTO chatrooms_messages (id, chatroom_id, prompt_id, position, role, content, created_at)
        SELECT 'm' || $1, chatroom_id, id, 2 * $1::bigint, 'user', 'message number ' || $1, now() FROM prompt
        """,
        number,
    )


async def found(connection: asyncpg.Connection, number: int) -> list[str]:
    """The messages that a search for a number finds."""
    rows = await connection.fetch(
        "SELECT content FROM search_messages(md5('user')::uuid, $1, NULL, NULL, NULL, 10)", str(number)
    )
    return [row["content"] for row in rows]


async def building(connection: asyncpg.Connection) -> int | None:
    """The process that builds the index and waits for older transactions, if any does."""
    return await connection.fetchval("SELECT pid FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting for%'")


async def held_up(connection: asyncpg.Connection) -> bool:
    """Whether somebody waits for a lock of the rooms."""
    waiting = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'chatrooms_metadata'::regclass"
    return bool(await connection.fetchval(f"SELECT EXISTS ({waiting})"))


async def outcome(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = await asyncio.to_thread(process.communicate)
    return process.returncode, out + err


async def test_nobody_waits_for_it_and_nothing_is_left_out(
    old: asyncpg.Connection, empty_database_url: str, started: Start
) -> None:
    backup, blocker = await asyncpg.connect(empty_database_url), await asyncpg.connect(empty_database_url)
    await backup.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM users")
    await blocker.execute("BEGIN; LOCK chatrooms_metadata IN ACCESS EXCLUSIVE MODE")
    first = started()
    await until(lambda: held_up(old), "the first update is held up")
    second = started()

    async def second_waits() -> bool:
        others = (
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_try_advisory%' AND pid <> pg_backend_pid()"
        )
        return bool(await old.fetchval(others))

    await until(second_waits, "another migration waits for the first, from before the build on")
    await blocker.execute("COMMIT")
    await blocker.close()
    await until(lambda: building(old), "the build waits for the backup")
    await old.execute("SET lock_timeout = '100ms'")
    for number in range(MESSAGES, MESSAGES + 100):
        await say(old, number)
    await old.execute("DELETE FROM chatrooms_messages WHERE id = 'm7'")
    assert await versions(empty_database_url) == [1, 2, 3, 4]
    await backup.execute("COMMIT")
    await backup.close()
    for process in (first, second):
        status, said = await outcome(process)
        assert status == 0, said
    assert await old.fetchval("SELECT count(*) FROM chatrooms_messages WHERE user_id IS NULL") == 0
    for number in (0, MESSAGES - 1, MESSAGES, MESSAGES + 99):
        assert await found(old, number) == [f"message number {number}"]
    await say(old, MESSAGES + 100)
    assert await found(old, MESSAGES + 100) == [f"message number {MESSAGES + 100}"]


async def test_a_build_that_is_broken_off_is_begun_again(
    old: asyncpg.Connection, empty_database_url: str, started: Start
) -> None:
    backup = await asyncpg.connect(empty_database_url)
    await backup.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM users")
    process = started()
    pid = await until(lambda: building(old), "the build waits for the backup")
    await old.execute("SELECT pg_terminate_backend($1, 10000)", pid)
    status, said = await outcome(process)
    assert status != 0, said
    await backup.close()
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'chatrooms_messages_search'::regclass"
    assert await old.fetchval(valid) is False
    assert await versions(empty_database_url) == [1, 2, 3, 4]
    await say(old, MESSAGES)
    status, said = await outcome(started())
    assert status == 0, said
    assert await old.fetchval(valid) is True
    assert await found(old, MESSAGES) == [f"message number {MESSAGES}"]


async def test_messages_that_are_being_deleted_are_waited_for_without_a_lock(
    old: asyncpg.Connection, empty_database_url: str, started: Start
) -> None:
    """Whoever deletes a room locks its messages in another order than a backfill that waited for them would."""
    other = await asyncpg.connect(empty_database_url)
    await old.execute("BEGIN; LOCK chatrooms_metadata IN ACCESS EXCLUSIVE MODE")
    process = started()
    await until(lambda: held_up(other), "the first update is held up")
    await other.execute("BEGIN; DELETE FROM chatrooms_messages WHERE id = 'm7'")
    await old.execute("COMMIT")

    async def all_others_are_done() -> bool:
        rows = await old.fetch("SELECT id FROM chatrooms_messages WHERE user_id IS NULL")
        return [row["id"] for row in rows] == ["m7"]

    await until(all_others_are_done, "every other message has its owner")
    await other.execute("ROLLBACK")
    await other.close()
    status, said = await outcome(process)
    assert status == 0, said
    assert await found(old, 7) == ["message number 7"]


async def test_the_search_is_moved_out_of_the_messages_while_processes_of_the_version_before_go_on(
    old: asyncpg.Connection, empty_database_url: str, tmp_path: Path
) -> None:
    status, said = migrate(empty_database_url, script_up_to(9, tmp_path))
    assert status == 0, said
    backup = await asyncpg.connect(empty_database_url)
    await backup.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM chatrooms_messages LIMIT 1")
    writer = await asyncpg.connect(empty_database_url)
    process = psql(empty_database_url)
    try:

        async def drops() -> bool:
            waiting = (
                "SELECT FROM pg_stat_activity WHERE query LIKE 'DROP INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'"
            )
            return bool(await writer.fetchval(f"SELECT EXISTS ({waiting})"))

        await until(drops, "the old index waits for the backup")
        await old.execute("SET lock_timeout = '100ms'")
        await say(old, MESSAGES)
        await old.execute("DELETE FROM chatrooms_messages WHERE id = 'm7'")
        with pytest.raises(asyncpg.OperatorInterventionError):  # an outage to a process of version 9: ask again
            await found(old, MESSAGES)
        assert max(await versions(empty_database_url)) == 9
        process.kill()
        process.communicate()
        await backup.execute("COMMIT")
        status, said = migrate(empty_database_url)
        assert status == 0, said
    finally:
        process.kill()
        process.communicate()
    assert dump(empty_database_url) == SNAPSHOT.read_text()
    await say(old, MESSAGES + 1)
    async with opened(empty_database_url) as database:
        assert await index(database) == MESSAGES + 1
    for number in (0, MESSAGES - 1, MESSAGES, MESSAGES + 1):
        answer = await search(old, await old.fetchval("SELECT id FROM users"), str(number), None, 50)
        assert f"message number {number}" in [message.content for message in answer.messages]
    assert await indexed(old) == await stored(old)
    await writer.close()
    await backup.close()
