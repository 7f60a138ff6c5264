"""Whatever is raised while connecting means that the database is away, and says why; by a statement it does not."""

import asyncio
import json
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
import structlog

from gembackend import app, config, dead_letters, lifecycle
from gembackend.check import check
from gembackend.embedded.postgres import binaries
from gembackend.plumbing.postgres import Database, DatabaseAway, SchemaMismatch, check_schema
from tests.accounts import settings
from tests.logins import logging_in, role_with_password
from tests.relay import Relay

PASSWORD = "sesame-open-39"


@asynccontextmanager
async def opened(url: str, **options: float) -> AsyncIterator[Database]:
    database = Database(url, 1, **options)
    await database.open()
    yield database
    await database.close()


async def refusal(url: str, **options: float) -> DatabaseAway:
    """How this login is refused."""
    async with opened(url, **options) as database:
        with pytest.raises(DatabaseAway) as away:
            await database.ping()
    assert PASSWORD not in away.value.told and "\n" not in away.value.told
    assert away.value.code.name == "database_unavailable"
    return away.value


@pytest.fixture
async def guarded(db: asyncpg.Connection, direct_url: str) -> AsyncIterator[str]:
    """The test's database for a role of this test that has a password."""
    name = "guarded_" + urlsplit(direct_url).path[1:]
    await role_with_password(db, name, PASSWORD)
    yield logging_in(direct_url, name, PASSWORD)
    await db.execute(f"DROP ROLE {name}")


async def test_a_refused_login_is_told_in_the_servers_words(
    db: asyncpg.Connection, direct_url: str, guarded: str
) -> None:
    role = urlsplit(guarded).username
    async with opened(guarded) as database:
        await database.ping()
    away = await refusal(guarded.replace(PASSWORD, "wrong"))
    assert away.why == f'FATAL: password authentication failed for user "{role}"'
    directory = parse_qs(urlsplit(direct_url).query)["host"][0]
    assert away.told.startswith(f"PostgreSQL at {directory}:5432, database test_")
    for statement, why in (
        (f"ALTER ROLE {role} CONNECTION LIMIT 0 NOSUPERUSER", "too many connections for role"),
        (f"ALTER ROLE {role} NOLOGIN", "is not permitted to log in"),
    ):
        await db.execute(statement)
        assert why in (await refusal(guarded)).why
    assert "does not exist" in (await refusal(logging_in(direct_url, "nobody_of_this_name"))).why
    assert "does not exist" in (await refusal(logging_in(direct_url, "postgres", database="none"))).why


async def test_a_database_that_is_closed_is_told(db: asyncpg.Connection, empty_database_url: str) -> None:
    name = urlsplit(empty_database_url).path[1:]
    await db.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    assert "not currently accepting connections" in (await refusal(empty_database_url)).why


async def test_nobody_there_is_told_for_each_host(tmp_path: Path) -> None:
    assert (await refusal("postgresql://u@127.0.0.1:9/chat")).told == (
        "PostgreSQL at 127.0.0.1:9, database chat: Connection refused"
    )
    assert (await refusal(f"postgresql:///chat?host={tmp_path}")).why == "No such file or directory"
    away = await refusal(f"postgresql://127.0.0.1:9,127.0.0.1:10/chat?password={PASSWORD}")
    assert away.why == "127.0.0.1:9: Connection refused; 127.0.0.1:10: Connection refused"
    assert (await refusal(f"postgresql://u@{'x' * 80}.example/chat")).why  # no name at all: the client's own error


async def nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def another_protocol(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(8)
    writer.write(b"-ERR unknown command\r\n")
    writer.close()


@pytest.mark.parametrize("answer", [nothing, another_protocol])
@pytest.mark.parametrize("mode", ["disable", "prefer", "require"])
async def test_what_is_no_postgresql_is_away(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], mode: str
) -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert (await refusal(f"postgresql://u:{PASSWORD}@127.0.0.1:{port}/chat?sslmode={mode}", connect_seconds=1.0)).why
    server.close()


async def test_who_does_not_answer_is_given_up_after_the_bound(direct_url: str) -> None:
    async with Relay(direct_url).running() as line:
        line.silence()
        away = await refusal(line.url(), connect_seconds=0.1)
        assert away.why == "no answer within 0.1 s"


async def test_a_statement_that_fails_alike_keeps_its_meaning(direct_url: str) -> None:
    async with opened(direct_url) as database:
        with pytest.raises(asyncpg.InvalidPasswordError):
            async with database.connection() as connection:
                await connection.execute("DO $$ BEGIN RAISE invalid_password; END $$")
        await database.ping()
        assert database.usage() == (0, 1)


async def test_the_next_host_is_asked_and_the_one_that_answered_is_asked_first(direct_url: str) -> None:
    async with Relay(direct_url).running() as dead, Relay(direct_url).running() as alive:
        dead.silence()
        url = f"postgresql://postgres@127.0.0.1:{dead.port},127.0.0.1:{alive.port}/{urlsplit(direct_url).path[1:]}"
        async with opened(url, connect_seconds=0.1) as database:
            for turn in range(2):
                async with database.connection() as connection:
                    assert await connection.fetchval("SELECT 1") == 1
                    connection.terminate()
                assert (dead.taken, alive.taken) == (1, turn + 1)


async def test_a_host_that_takes_no_writes_is_passed_over_when_writes_are_asked_for(
    db: asyncpg.Connection, direct_url: str
) -> None:
    name = urlsplit(direct_url).path[1:]
    await db.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    away = await refusal(f"{direct_url}&target_session_attrs=read-write")
    assert away.why == "it takes no writes"
    host = logging_in(direct_url, "postgres").split("@")[1].split("/")[0]
    away = await refusal(f"postgresql://postgres@{host},{host}/{name}")
    assert away.why.count("it takes no writes") == 2


async def test_parameters_reach_the_server_but_not_what_the_service_depends_on(direct_url: str) -> None:
    url = f"{direct_url}&application_name=mine&options=-csearch_path%3Dapp%20-cTimeZone%3DAsia/Tokyo"
    async with opened(url) as database, database.connection() as connection:
        found = [await connection.fetchval(f"SHOW {name}") for name in ("application_name", "search_path", "timezone")]
    assert found == ["mine", "app", "UTC"]


async def test_a_quiet_connection_is_kept_alive_as_the_url_says(direct_url: str) -> None:
    async with Relay(direct_url).running() as line:
        for query, expected in (
            ({}, (1, 60)),
            ({"keepalives_idle": "7"}, (1, 7)),
            ({"keepalives": "0"}, (0, 60)),
        ):
            async with opened(line.url(**query)) as database, database.connection() as connection:
                found = connection.socket  # type: ignore[attr-defined]
                alive = found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert (alive, found.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)) == expected


async def test_db_host_may_be_a_socket_directory_for_psql_too(direct_url: str) -> None:
    parts = urlsplit(direct_url)
    query = parse_qs(parts.query)
    given = {"DB_HOST": query["host"][0], "DB_PORT": query["port"][0], "DB_NAME": parts.path[1:], "DB_USER": "postgres"}
    url = config.load(given, "store").database_url
    assert url is not None
    async with opened(url) as database:
        await database.ping()
    command = [str(binaries() / "psql"), "--no-psqlrc", "-Atc", "SELECT current_database()", url]
    told = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == parts.path[1:]


async def test_a_role_without_rights_is_told_so(db: asyncpg.Connection, direct_url: str) -> None:
    name = "powerless_" + urlsplit(direct_url).path[1:]
    await db.execute(f"CREATE ROLE {name} LOGIN")
    try:
        async with opened(logging_in(direct_url, name)) as database:
            with pytest.raises(SchemaMismatch, match="permission denied for table schema_migrations"):
                async with database.connection() as connection:
                    await check_schema(connection)
    finally:
        await db.execute(f"DROP ROLE {name}")


async def test_check_says_why_and_goes_on_to_the_rest(guarded: str, redis_url: str) -> None:
    chosen = settings(guarded.replace(PASSWORD, "wrong"), redis_url, GEMINI_ENDPOINT="grpc://127.0.0.1:9")
    lines: list[str] = []
    assert await check(chosen, lines.append) == 1
    [line] = [line for line in lines if "PostgreSQL" in line]
    assert line.startswith("FAIL  PostgreSQL: ") and "FATAL: password authentication failed" in line
    assert ":5432, database test_" in line and "wrong" not in line
    assert any(line.startswith("ok    Redis") for line in lines) and any("Stripe" in line for line in lines)


async def test_dead_letters_say_why_in_one_line(guarded: str, redis_url: str) -> None:
    chosen = settings(guarded.replace(PASSWORD, "wrong"), redis_url)
    lines: list[str] = []
    assert await dead_letters.show(chosen, 10, as_json=False, say=lines.append) == 1
    [line] = lines
    assert line.startswith("gembackend: cannot use PostgreSQL at ") and "FATAL: password authentication failed" in line


async def test_a_start_says_what_it_waits_for_and_gives_up_in_one_line(
    guarded: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "PATIENCE_SECONDS", 0.1)
    chosen = settings(guarded.replace(PASSWORD, "wrong"), redis_url, GEMINI_ENDPOINT="grpc://127.0.0.1:9")
    with structlog.testing.capture_logs() as logs:
        assert await lifecycle.serve(replace(chosen, server_port=0)) == 1
    [awaited] = [line for line in logs if line["event"] == "database_awaited"]
    assert "FATAL: password authentication failed" in awaited["why"] and ":5432, database test_" in awaited["where"]
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("gembackend: cannot use PostgreSQL at ") and awaited["why"] in line
    assert "wrong" not in line + json.dumps(logs, default=str)
