"""The embedded PostgreSQL: data that stays, odd places, orphans, and errors a person can read."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from gembackend.embedded.postgres import EmbeddedPostgres, migrate
from gembackend.embedded.process import EmbeddedError
from tests.servers import with_database

FAST = {"fsync": "off", "shared_buffers": "16MB"}


@asynccontextmanager
async def running(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The URL of a server that is stopped at the end."""
    try:
        yield await postgres.start()
    finally:
        await postgres.stop()


async def ask(url: str, statement: str) -> Any:
    """The first value that one statement gives."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def process_of(postgres: EmbeddedPostgres) -> psutil.Process:
    """The server of a cluster."""
    return psutil.Process(int((postgres.home / "postmaster.pid").read_text().split("\n")[0]))


async def test_data_stays_from_one_start_to_the_next(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path, settings=FAST)
    assert not postgres.exists
    async with running(postgres) as url:
        await ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert postgres.exists
    assert not (postgres.home / "postmaster.pid").exists()
    async with running(EmbeddedPostgres(tmp_path, settings=FAST)) as url:
        assert await ask(url, "SELECT answer FROM kept") == 42


async def test_a_cluster_of_an_older_version_goes_on_with_its_own_programs(tmp_path: Path) -> None:
    async with running(EmbeddedPostgres(tmp_path, version=16, settings=FAST)) as url:
        await migrate(url)
    async with running(EmbeddedPostgres(tmp_path, settings=FAST)) as url:
        assert (await ask(url, "SHOW server_version")).startswith("16.")
        assert await ask(url, "SELECT count(*) FROM users") == 0


@pytest.mark.parametrize(
    "place", ["with space", "a 'quote' \"or\" two", "comma,ed", "ünï%20code?#&", "deep/" * 30], ids=lambda at: at[:12]
)
async def test_any_place_will_do_for_asyncpg_and_for_psql(tmp_path: Path, place: str) -> None:
    async with running(EmbeddedPostgres(tmp_path / place, settings=FAST)) as url:
        await migrate(url)
        assert await ask(url, "SELECT count(*) FROM users") == 0


async def test_a_closed_directory_keeps_its_permissions_and_the_server_is_not_root(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    before = {path: (path.stat().st_mode, path.stat().st_uid) for path in (closed, *closed.parents)}
    postgres = EmbeddedPostgres(closed / "data", settings=FAST)
    async with running(postgres):
        assert process_of(postgres).uids().effective != 0
    assert {path: (path.stat().st_mode, path.stat().st_uid) for path in before} == before


async def test_an_orphan_is_stopped_before_the_next_start(tmp_path: Path) -> None:
    first = EmbeddedPostgres(tmp_path, settings=FAST)
    async with running(first) as url:
        await ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        orphan = process_of(first)
        guard = orphan.parent()
        assert guard
        guard.kill()
        async with running(EmbeddedPostgres(tmp_path, settings=FAST)) as url:
            assert not orphan.is_running()
            assert await ask(url, "SELECT answer FROM kept") == 42


async def test_a_killed_server_leaves_what_was_committed(tmp_path: Path) -> None:
    first = EmbeddedPostgres(tmp_path, settings=FAST)
    async with running(first) as url:
        await ask(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        process_of(first).send_signal(signal.SIGKILL)
    async with running(EmbeddedPostgres(tmp_path, settings=FAST)) as url:
        assert await ask(url, "SELECT answer FROM kept") == 42


async def test_a_process_that_took_over_a_servers_number_is_left_alone(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path, settings=FAST)
    async with running(postgres):
        pass
    (postgres.home / "postmaster.pid").write_text(f"{os.getpid()}\n{postgres.home}\n0\n5432\n\n\n")
    async with running(postgres) as url:
        assert await ask(url, "SELECT 1") == 1


async def test_an_interrupted_creation_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "postgres.new").mkdir()
    (tmp_path / "postgres.new" / "PG_VERSION").write_text("18\n")
    async with running(EmbeddedPostgres(tmp_path, settings=FAST)) as url:
        assert await ask(url, "SHOW data_directory") == str(tmp_path / "postgres")


async def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path, settings=FAST | {"no_such_setting": "1"})
    with pytest.raises(EmbeddedError, match='unrecognized configuration parameter "no_such_setting"'):
        await postgres.start()


async def test_migrating_an_empty_database_twice_gives_the_schema_once(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    await migrate(empty_database_url)
    assert await ask(empty_database_url, "SELECT count(*) = max(version) FROM schema_migrations")


async def test_a_migration_that_fails_gives_psqls_own_words(database_url: str) -> None:
    with pytest.raises(EmbeddedError, match=r'(?s)psql -f .*database "no_such_database" does not exist'):
        await migrate(with_database(database_url, "no_such_database"))
