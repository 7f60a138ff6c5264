"""The PostgreSQL pool, with every wait bounded and every outage turned into one fault."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from gembackend.plumbing.faults import Fault

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

SCHEMA_VERSION = 7
"""The newest migration in sql/migrations that this code was written for."""

ACQUIRE_SECONDS = 0.6
CONNECT_SECONDS = 0.6
STATEMENT_SECONDS = 1.5
CLOSE_SECONDS = 0.2
RETRY_AFTER_SECONDS = 1

OUTAGES = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # asyncpg is used just when the server's farewell arrives
    asyncpg.PostgresConnectionError,
    asyncpg.TransactionRollbackError,  # a deadlock: the same statement will do the next time
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
)
"""What says that the database, and not the statement, is at fault."""


class SchemaMismatch(Exception):
    """The database is not at the schema version this code needs; the text says what to do."""


class _Connection(asyncpg.Connection[asyncpg.Record] if TYPE_CHECKING else asyncpg.Connection):  # type: ignore[misc]
    """A connection that goes back to the pool without a round trip: nothing here leaves session state behind."""

    def get_reset_query(self) -> str:
        """Nothing to reset."""
        return ""


class Database:
    """A pool whose every connection is handed out for one bounded piece of work.

    An outage becomes `Fault("database_unavailable")` within ACQUIRE_SECONDS, CONNECT_SECONDS and STATEMENT_SECONDS
    together; a connection that was in use then is thrown away, so the pool heals by itself.
    """

    def __init__(self, url: str, size: int) -> None:
        self._url = url
        self.size = size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        # The pool's own queue lets newcomers overtake those who wait; a semaphore does not.
        self._turns = asyncio.Semaphore(size)

    async def open(self) -> None:
        """Make the pool; connections are made when they are first needed."""
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=self.size,
            connection_class=_Connection,
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS,
            server_settings={"application_name": "gembackend", "jit": "off", "timezone": "UTC"},
        )

    async def close(self) -> None:
        """Close every connection; those that do not answer are cut."""
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await pool.close()
        except OUTAGES:
            pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for one piece of work; raises Fault("database_unavailable") on an outage."""
        if self._pool is None:
            raise _unavailable()
        try:
            async with asyncio.timeout(ACQUIRE_SECONDS):
                await self._turns.acquire()
        except TimeoutError as error:
            raise _unavailable() from error
        try:
            async with self._borrowed(self._pool) as held:
                yield held
        finally:
            self._turns.release()

    @asynccontextmanager
    async def _borrowed(self, pool: "asyncpg.Pool[asyncpg.Record]") -> AsyncIterator[Connection]:
        """A connection of the pool, cut rather than given back when it is in doubt."""
        try:
            held = await pool.acquire(timeout=CONNECT_SECONDS)
        except OUTAGES as error:
            raise _unavailable() from error
        try:
            yield held
        except OUTAGES as error:
            _cut(held)
            raise _unavailable() from error
        except asyncio.CancelledError:
            # The statement under way is of no use to anyone: cut it rather than wait for the server's word.
            _cut(held)
            raise
        finally:
            await pool.release(held)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction, committed when the block ends well."""
        async with self.connection() as held, held.transaction():
            yield held

    def usage(self) -> tuple[int, int]:
        """How many connections are in use, and how many are open."""
        if self._pool is None:
            return 0, 0
        size, idle = self._pool.get_size(), self._pool.get_idle_size()
        return size - idle, size

    async def ping(self) -> None:
        """Raise Fault unless the database answers."""
        async with self.connection() as held:
            await held.fetchval("SELECT 1")


def _cut(held: Connection) -> None:
    """End a connection; one that its server has ended is out of the pool's hands already, and of ours."""
    with suppress(asyncpg.InterfaceError):
        held.terminate()


def _unavailable() -> Fault:
    return Fault(
        "database_unavailable",
        "The database cannot be reached at the moment; try again shortly.",
        retry_after=RETRY_AFTER_SECONDS,
    )


async def check_schema(connection: Connection) -> None:
    """Raise SchemaMismatch unless the schema is the one this code was written for, or a newer one that suits it too.

    A migration says in the ledger from which version on code works with it, so that processes of the version before
    may go on, and start again, until they are replaced.
    """
    version, compatible_from = await _ledger(connection)
    if compatible_from <= SCHEMA_VERSION <= version:
        return
    found = f"has schema version {version}" if version else "has no gembackend schema"
    remedy = (
        "run a newer gembackend"
        if version > SCHEMA_VERSION
        else 'apply it with: psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f sql/migrate.sql'
    )
    raise SchemaMismatch(f"The database {found}, this gembackend needs version {SCHEMA_VERSION}; {remedy}")


async def _ledger(connection: Connection) -> tuple[int, int]:
    """The schema's version and the oldest version of code that suits it; (0, 0) of a database that has none.

    A ledger of before version 4 has no `compatible_from`, which JSON does not mind.
    """
    try:
        row = await connection.fetchrow(
            """
            SELECT coalesce(max(version), 0) AS version,
                   coalesce(max(coalesce((to_jsonb(m) ->> 'compatible_from')::integer, version)), 0) AS compatible_from
            FROM schema_migrations m
            """
        )
    except asyncpg.UndefinedTableError:
        return 0, 0
    assert row is not None
    return row["version"], row["compatible_from"]


def affected(status: Any) -> int:
    """How many rows a command changed, from its PostgreSQL command tag ("UPDATE 3" is 3)."""
    return int(str(status).rsplit(" ", 1)[-1])
