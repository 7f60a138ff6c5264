"""The PostgreSQL pool, with every wait bounded and every outage turned into one fault."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import asyncpg

from gembackend.plumbing import logs
from gembackend.plumbing.connections import Connections
from gembackend.plumbing.database_login import Login, reason
from gembackend.plumbing.database_url import CONNECT_SECONDS, read
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.outages import Outages
from gembackend.plumbing.pooler import SERVER_SECONDS, STRANGER, Opener, Pooler, unfit

if TYPE_CHECKING:
    from gembackend.config import Settings

log = logs.logger(__name__)

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

SCHEMA_VERSION = 10
"""The newest migration in sql/migrations that this code was written for."""

WAIT_SECONDS = 1.3
"""How long a piece of work waits for a connection; with one statement that is not answered it stays below 3 s."""
STATEMENT_SECONDS = 1.5
CLOSE_SECONDS = 0.2
RETRY_AFTER_SECONDS = 1

NOT_OURS = (
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidCachedStatementError,
)
"""What is said where the rights or the schema are not those that were there at the start: grants taken, a search path
changed, a table away while it is restored. The statements are right, and will do once these are put right."""

OUTAGES = (
    *NOT_OURS,
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


REFUSED = (asyncpg.QueryCanceledError, asyncpg.TransactionRollbackError)
"""Those of them after which the server waits for the next statement."""


class SchemaMismatch(Exception):
    """The database is not at the schema version this code needs; the text says what to do."""


class DatabaseAway(Fault):
    """The database cannot be used at the moment. `told` says which one and why, for operators and logs.

    It is `hopeless` when waiting will not help, and `slow` when a statement took too long, of which nothing remains.
    """

    def __init__(self, where: str, why: str, *, hopeless: bool = False, slow: bool = False) -> None:
        super().__init__(
            "database_unavailable",
            "The database cannot be reached at the moment; try again shortly.",
            retry_after=RETRY_AFTER_SECONDS,
        )
        self.where = where
        self.why = why
        self.hopeless = hopeless
        self.slow = slow

    @property
    def told(self) -> str:
        """Host, port, database, and the server's own word; never a password."""
        return f"PostgreSQL at {self.where}: {self.why}"

    @property
    def told_anyone(self) -> str:
        """What is the matter, for whoever asks: nothing of the server's own."""
        if isinstance(self.__cause__, asyncpg.ReadOnlySQLTransactionError):
            return "takes no writes"
        if isinstance(self.__cause__, NOT_OURS):
            return "does not have the schema or the rights that are needed"
        return "cannot be reached"


class Database:
    """Connections, each handed out for one bounded piece of work.

    Whatever is raised while connecting, and an outage afterwards, becomes `DatabaseAway` within WAIT_SECONDS and
    STATEMENT_SECONDS together; a connection that was in use then is thrown away. Connecting has a bound of its own,
    which may be longer: attempts go on in the background.
    """

    def __init__(
        self,
        url: str,
        size: int,
        *,
        pooler: Pooler = "auto",
        connect_seconds: float = CONNECT_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        """`wait_seconds` is how long a piece of work waits for its connection; raises Refused for a URL unfit."""
        self.size = size
        self._wait_seconds = wait_seconds
        self._opener = Opener(pooler)
        self._login = Login(read(url), self._opener.open, seconds=connect_seconds, statement_seconds=STATEMENT_SECONDS)
        self._connections: Connections | None = None
        self._outages = Outages()

    @classmethod
    def of(cls, settings: "Settings", size: int, *, wait_seconds: float = WAIT_SECONDS) -> Self:
        """The database that the settings name, with `size` connections at most."""
        assert settings.database_url
        return cls(
            settings.database_url,
            size,
            pooler=settings.database_pooler,
            connect_seconds=settings.database_connect_seconds,
            wait_seconds=wait_seconds,
        )

    @property
    def where(self) -> str:
        """Host, port and database, for an operator."""
        return self._login.where

    async def open(self) -> None:
        """Be ready to hand out connections; they are made when they are first needed."""
        self._connections = Connections(self._login, self.size, noticed=self._notice)

    async def close(self) -> None:
        """Close every connection; those that do not answer are cut."""
        if self._connections is not None:
            connections, self._connections = self._connections, None
            await connections.close(CLOSE_SECONDS)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for one piece of work; raises DatabaseAway on an outage."""
        connections = self._connections
        if connections is None:
            raise DatabaseAway(self.where, "the connections are closed")
        try:
            held = await connections.take(self._wait_seconds)
        except Exception as error:  # whatever is raised while connecting
            raise self._away(error) from error
        busy = 0.0
        try:
            yield held
        except REFUSED as error:  # the connection is as it was
            raise self._away(error) from error
        except OUTAGES as error:
            held.terminate()
            raise self._away(error) from error
        except STRANGER as error:
            self._opener.share()
            held.terminate()
            connections.renew()
            raise self._away(error) from error
        except asyncio.CancelledError:
            # The statement under way is of no use to anyone: cut it rather than wait for the server's word.
            held.terminate()
            busy = SERVER_SECONDS
            raise
        finally:
            connections.give_back(held, busy_seconds=busy)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction, committed when the block ends well."""
        async with self.connection() as held, held.transaction():
            yield held

    @property
    def pooled(self) -> bool:
        """Whether there is a pooler in between that shares its servers, as far as the connections so far tell."""
        return self._opener.shared

    def usage(self) -> tuple[int, int]:
        """How many connections are in use, and how many are open."""
        return (0, 0) if self._connections is None else self._connections.usage()

    async def ping(self) -> None:
        """Raise DatabaseAway unless the database answers, shows our schema and takes writes, in one round trip once
        there is a connection."""
        async with self.connection() as held:
            told = await held.execute(
                "SELECT FROM schema_migrations WHERE current_setting('transaction_read_only') = 'off' LIMIT 1"
            )
            if not affected(told):
                raise asyncpg.ReadOnlySQLTransactionError("it takes no writes")

    def _away(self, error: Exception) -> DatabaseAway:
        never = unfit(error)
        slow = isinstance(error, asyncpg.QueryCanceledError | TimeoutError)
        return DatabaseAway(self.where, never or reason(error), hopeless=never is not None, slow=slow)

    def _notice(self, error: Exception | None) -> None:
        if error is None:
            if self._outages.works():
                log.info("database_available", where=self.where)
        elif self._outages.failed(why := reason(error)):
            log.warning("database_unavailable", where=self.where, why=why)


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
    except asyncpg.SyntaxOrAccessError as error:  # no right to read it, or nothing that is PostgreSQL
        raise SchemaMismatch(f"The database does not show its schema version: {reason(error)}") from error
    assert row is not None
    return row["version"], row["compatible_from"]


def affected(status: Any) -> int:
    """How many rows a command changed, from its PostgreSQL command tag ("UPDATE 3" is 3)."""
    return int(str(status).rsplit(" ", 1)[-1])
