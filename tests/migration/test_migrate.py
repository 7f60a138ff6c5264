"""sql/migrate.sql: from empty, again, twice at once, failing half-way; and the service's check of the version."""

import asyncio
import re
import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from gembackend.embedded.postgres import MIGRATE, binaries
from gembackend.plumbing.postgres import SCHEMA_VERSION, SchemaMismatch, check_schema
from tests.migration.snapshot import SNAPSHOT, dump
from tests.pooler import MODES, stranger
from tests.servers import Servers


def psql(url: str, script: Path = MIGRATE) -> subprocess.Popen[str]:
    command = [str(binaries() / "psql"), "--no-psqlrc", url, "-v", "ON_ERROR_STOP=1", "-f", str(script)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def migrate(url: str, script: Path = MIGRATE) -> tuple[int, str]:
    process = psql(url, script)
    out, err = process.communicate()
    return process.returncode, out + err


async def versions(url: str) -> list[int]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("SELECT version FROM schema_migrations ORDER BY version")
    await connection.close()
    return [row["version"] for row in rows]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of sql/ that a test may spoil."""
    return Path(shutil.copytree(MIGRATE.parent, tmp_path / "sql")) / "migrate.sql"


async def test_every_migration_is_in_the_script_and_the_newest_is_the_one_the_service_wants(
    empty_database_url: str,
) -> None:
    files = sorted(path.name for path in (MIGRATE.parent / "migrations").glob("*.sql"))
    assert files == re.findall(r"^ *\\ir migrations/(\S+)$", MIGRATE.read_text(), re.MULTILINE)
    status, said = migrate(empty_database_url)
    assert (status, f"schema version {SCHEMA_VERSION}" in said) == (0, True), said
    assert await versions(empty_database_url) == list(range(1, len(files) + 1))


async def test_the_snapshot_is_what_the_migrations_make(database_url: str) -> None:
    assert dump(database_url) == SNAPSHOT.read_text(), "run: python -m tests.migration.snapshot"


async def test_running_again_changes_nothing(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    before = await connection.fetch("SELECT * FROM schema_migrations ORDER BY version")
    status, said = migrate(database_url)
    assert status == 0, said
    assert await connection.fetch("SELECT * FROM schema_migrations ORDER BY version") == before
    assert dump(database_url) == SNAPSHOT.read_text()
    await connection.close()


async def test_running_many_at_once_is_safe(empty_database_url: str) -> None:
    running = [psql(empty_database_url) for _ in range(4)]
    said = [await asyncio.to_thread(process.communicate) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0, 0], said
    assert dump(empty_database_url) == SNAPSHOT.read_text()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("company", [False, True], ids=["alone", "among strangers"])
async def test_through_a_pooler_it_needs_one_in_session_mode(
    servers: Servers, empty_database_url: str, mode: str, company: bool
) -> None:
    url, before = servers.pooled(empty_database_url, mode), dump(empty_database_url)
    async with stranger(url) if company else nullcontext():
        status, said = await asyncio.to_thread(migrate, url)
    if mode == "session":
        assert status == 0, said
        assert dump(empty_database_url) == SNAPSHOT.read_text()
    else:
        assert status != 0
        [line] = said.strip().splitlines()
        assert "goes through a pooler that shares its servers" in line and "connect to PostgreSQL" in line
        assert dump(empty_database_url) == before


async def test_a_failing_step_leaves_the_earlier_version_whole(empty_database_url: str, copied: Path) -> None:
    second = next((copied.parent / "migrations").glob("0002_*.sql"))
    good = second.read_text()
    second.write_text("CREATE TABLE half_way (id integer);\nSELECT 1 / 0;\n" + good)
    status, said = migrate(empty_database_url, copied)
    assert status != 0 and "division by zero" in said
    assert await versions(empty_database_url) == [1]
    connection = await asyncpg.connect(empty_database_url)
    assert await connection.fetchval("SELECT to_regclass('half_way') IS NULL AND to_regclass('users') IS NOT NULL")
    await connection.close()
    second.write_text(good)
    status, said = migrate(empty_database_url, copied)
    assert status == 0, said
    assert dump(empty_database_url) == SNAPSHOT.read_text()


async def test_the_service_says_what_to_do_about_another_version(empty_database_url: str) -> None:
    connection = await asyncpg.connect(empty_database_url)
    with pytest.raises(SchemaMismatch, match=r"has no gembackend schema.*psql"):
        await check_schema(connection)
    migrate(empty_database_url)
    await check_schema(connection)
    await connection.execute("INSERT INTO schema_migrations VALUES ($1, 'from the future')", SCHEMA_VERSION + 1)
    with pytest.raises(SchemaMismatch, match=f"version {SCHEMA_VERSION + 1}.*newer gembackend"):
        await check_schema(connection)
    await connection.execute(
        "UPDATE schema_migrations SET compatible_from = $1 WHERE name = 'from the future'", SCHEMA_VERSION
    )
    await check_schema(connection)
    await connection.execute("INSERT INTO schema_migrations VALUES ($1, 'breaking')", SCHEMA_VERSION + 2)
    with pytest.raises(SchemaMismatch, match=f"version {SCHEMA_VERSION + 2}.*newer gembackend"):
        await check_schema(connection)
    await connection.execute("DELETE FROM schema_migrations WHERE version > 1")
    with pytest.raises(SchemaMismatch, match=r"version 1,.*psql"):
        await check_schema(connection)
    await connection.execute("ALTER TABLE schema_migrations DROP COLUMN compatible_from")
    with pytest.raises(SchemaMismatch, match=r"version 1,.*psql"):
        await check_schema(connection)
    await connection.close()


async def test_a_process_of_the_version_before_goes_on_accepting_prompts(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    user, room, prompt = (UUID(int=number) for number in (1, 2, 3))
    await connection.execute("INSERT INTO users (id, phone, password_hash) VALUES ($1, '+15550001111', 'x')", user)
    await connection.execute("INSERT INTO chatrooms_metadata (id, user_id, name) VALUES ($1, $2, 'room')", room, user)
    outcome = await connection.fetchval(
        "SELECT outcome FROM accept_prompts($1, $2, $3, $4, $5, $6, 5, 20)",
        [prompt],
        [user],
        [room],
        ["hello"],
        [None],
        ["request"],
    )
    assert outcome == "accepted"
    await connection.close()
