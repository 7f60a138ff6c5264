"""Behind a real PgBouncer whose servers are shared with strangers: statements are whole, and mean what they meant."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

import asyncpg
import pytest

from gembackend import dead_letters, lifecycle
from gembackend.check import check
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.pooler import Pooler
from gembackend.plumbing.postgres import Connection, Database
from tests.accounts import settings
from tests.pooler import MODES, PgBouncer, stranger
from tests.processes import until
from tests.servers import Servers
from tests.whole import whole_service

SETTINGS: tuple[Pooler, ...] = ("auto", "session", "transaction")


@asynccontextmanager
async def opened(url: str, size: int = 4, pooler: Pooler = "auto") -> AsyncIterator[Database]:
    database = Database(url, size, pooler=pooler)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
def shared_url(servers: Servers, direct_url: str) -> str:
    return servers.pooled(direct_url, "transaction")


async def insert(connection: Connection, name: str) -> None:
    await connection.execute(
        "INSERT INTO users (id, phone, password_hash, name) VALUES (gen_random_uuid(), $1, 'x', $2)",
        f"+1415555{ord(name):04}",
        name,
    )


async def names(connection: Connection) -> list[str]:
    rows = await connection.fetch("SELECT name FROM users WHERE name = ANY ($1::text[]) ORDER BY name", list("abc"))
    return [row["name"] for row in rows]


async def settled(database: Database) -> None:
    """Wait until the database answers again."""

    async def answers() -> bool:
        try:
            await database.ping()
        except Fault:
            return False
        return True

    await until(answers, "the database at hand again")


async def test_no_statement_is_mixed_up_with_those_of_strangers(shared_url: str) -> None:
    """An array, which has asyncpg ask for more before it can send it, a row, a change, many at once."""

    async def work(database: Database, number: int) -> None:
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT $1::integer + 1", number) == number + 1
            assert await connection.fetchval("SELECT cardinality($1::uuid[])", []) == 0
            assert dict((await connection.fetchrow("SELECT $1::text AS word", str(number))) or {}) == {
                "word": str(number)
            }
            await connection.executemany("SELECT $1::integer", [(number,), (number,)])
        async with database.transaction() as connection:
            assert await connection.execute("UPDATE users SET name = $1 WHERE false", "x") == "UPDATE 0"
            assert await connection.fetchval("SHOW jit") == "off"

    async with opened(shared_url, 6) as database, stranger(shared_url):
        for _ in range(12):
            await asyncio.gather(*(work(database, number) for number in range(12)))
        assert database.pooled


async def test_a_hundred_prompts_among_strangers_are_all_answered(shared_url: str, redis_url: str) -> None:
    async with whole_service(shared_url, redis_url) as whole, stranger(shared_url):
        await whole.make_pro()
        rooms = await asyncio.gather(*(whole.room(f"room {number}") for number in range(20)))
        prompts = await asyncio.gather(*(whole.ask(rooms[number % 20], f"prompt {number}") for number in range(100)))
        assert [prompt["status"] for prompt in prompts] == ["answered"] * 100


async def test_a_statement_is_committed_when_it_has_been_answered_and_fails_alone(
    shared_url: str, db: asyncpg.Connection
) -> None:
    async with opened(shared_url) as database:
        async with database.connection() as connection:
            await insert(connection, "a")
            assert await names(db) == ["a"]
            with pytest.raises(asyncpg.UniqueViolationError):
                await insert(connection, "a")
            with pytest.raises(asyncpg.DataError):
                await connection.fetchval("SELECT $1::integer", "no number")
            await insert(connection, "b")
        assert await names(db) == ["a", "b"]

        async def both() -> None:
            async with database.transaction() as connection:
                await insert(connection, "c")
                await insert(connection, "a")

        with pytest.raises(asyncpg.UniqueViolationError):
            await both()
        assert await names(db) == ["a", "b"]


async def test_an_outage_behind_the_pooler_is_a_fault_and_passes(shared_url: str, db: asyncpg.Connection) -> None:
    async with opened(shared_url) as database:
        with pytest.raises(Fault):
            async with database.connection() as connection:
                await connection.fetchval("SELECT pg_terminate_backend(pg_backend_pid()), $1::text", "x")
        await settled(database)
        async with db.transaction():
            await db.execute("LOCK TABLE users")
            with pytest.raises(Fault):
                async with database.connection() as connection:
                    await insert(connection, "a")
        async with database.connection() as connection:
            await insert(connection, "a")
        assert await names(db) == ["a"]


@pytest.mark.parametrize("mode", [None, *MODES])
async def test_the_compiler_is_off(servers: Servers, direct_url: str, mode: str | None) -> None:
    url = direct_url if mode is None else servers.pooled(direct_url, mode)
    for setting in SETTINGS if mode == "session" else ("auto",):
        async with opened(url, 2, setting) as database:
            async with database.connection() as connection:
                assert await connection.fetchval("SHOW jit") == "off", setting
            async with database.transaction() as connection:
                assert await connection.fetchval("SHOW jit") == "off", setting


@pytest.mark.parametrize("mode", [None, "session"])
async def test_a_session_of_its_own_is_sent_nothing_but_the_statement_which_it_prepares_once(
    servers: Servers, direct_url: str, mode: str | None
) -> None:
    url, setting = (direct_url, SETTINGS[0]) if mode is None else (servers.pooled(direct_url, mode), SETTINGS[1])
    sent: list[str] = []
    async with opened(url, 1, setting) as database, database.connection() as connection:
        with connection.query_logger(lambda record: sent.append(record.query)):
            for number in range(3):
                assert await connection.fetchval("SELECT $1::integer", number) == number
        kept = "SELECT count(*) FROM pg_prepared_statements WHERE statement = $1"
        assert await connection.fetchval(kept, "SELECT $1::integer") == 1
        assert sent == ["SELECT $1::integer"] * 3
        assert not database.pooled


async def test_a_pooler_that_comes_and_goes_is_noticed_at_the_next_connection(
    direct_url: str, tmp_path: Path, db: asyncpg.Connection
) -> None:
    """One socket leads to PostgreSQL, to a pooler, and to PostgreSQL again."""
    server, pooler = urlsplit(direct_url), PgBouncer(tmp_path / "pooler", direct_url, "transaction")
    link = tmp_path / ".s.PGSQL.5432"
    itself = Path(parse_qs(server.query)["host"][0]) / link.name
    through = urlunsplit(server._replace(query=f"host={tmp_path}&port=5432"))

    async def leads_to(socket: Path, *, shared: bool) -> None:
        link.unlink(missing_ok=True)
        link.symlink_to(socket)
        await settled(database)
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT cardinality($1::uuid[])", []) == 0
        assert database.pooled is shared

    async with opened(through, 2) as database:
        await leads_to(itself, shared=False)
        await pooler.start()
        await db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await leads_to(pooler.socket, shared=True)
        await pooler.stop()
        await leads_to(itself, shared=False)


async def test_servers_that_turn_out_to_be_shared_are_taken_for_shared(shared_url: str) -> None:
    """Whoever says "session" of a pooler in transaction mode has faults at first, and then none."""
    async with opened(shared_url, 6, "session") as database:

        async def ask(number: int) -> bool:
            try:
                async with database.connection() as connection:
                    return await connection.fetchval("SELECT $1::integer", number) == number
            except Fault:
                return False

        async def noticed() -> bool:
            await asyncio.gather(*(ask(number) for number in range(6)))
            return database.pooled

        await until(noticed, "the servers known to be shared")
        async with stranger(shared_url):
            assert all([all(await asyncio.gather(*(ask(number) for number in range(12)))) for _ in range(10)])


@pytest.mark.parametrize(
    ("mode", "parameter", "said"),
    [
        ("statement", "", "set its pool_mode to transaction"),
        ("transaction", "&options=-c%20search_path%3Dpublic", "take the parameter out of DATABASE_URL"),
    ],
)
async def test_a_pooler_that_can_never_do_is_told_at_once_in_one_line(
    mode: str,
    parameter: str,
    said: str,
    direct_url: str,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pooler = PgBouncer(tmp_path, direct_url, mode)
    await pooler.start()
    try:
        chosen = settings(pooler.url(direct_url) + parameter, redis_url, GEMINI_ENDPOINT="grpc://127.0.0.1:9")
        lines: list[str] = []
        assert await check(chosen, lines.append) == 1
        [line] = [line for line in lines if "PostgreSQL" in line]
        assert line.startswith("FAIL") and "the pooler says: " in line and said in line

        assert await dead_letters.show(chosen, 1, as_json=False, say=lines.append) == 1
        assert lines[-1].startswith("gembackend: ") and "the pooler says: " in lines[-1] and said in lines[-1]

        monkeypatch.setattr("gembackend.app.PATIENCE_SECONDS", 300.0)
        assert await lifecycle.serve(dataclasses.replace(chosen, server_port=0, shutdown_grace_seconds=2)) == 1
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gembackend: ")]
        assert "the pooler says: " in line and said in line
    finally:
        await pooler.stop()
