"""Poolers between us and PostgreSQL: one is noticed, and statements are sent so that it may share its servers.

A pooler in transaction mode (https://www.pgbouncer.org/features.html) gives a client a server for one transaction at a
time. A statement that was prepared is then somewhere else when it is wanted, and between a statement's preparation and
its execution, which are two messages, anybody else's may come. Behind a pooler each statement therefore is prepared
and executed inside a transaction, one of its own unless there is one already: what it does, and when others see it, is
what it was without. Without a pooler nothing is different.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import asyncpg

from gembackend.plumbing import logs

T = TypeVar("T")
Pooler = Literal["auto", "session", "transaction"]
"""What is at the other end: looked at for every connection, a session for each, or servers shared by transaction."""

log = logs.logger(__name__)

STRANGER = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
"""What a server says of statements that were prepared on another one; the statement has not been executed."""

SERVER_SECONDS = 1.3
"""After so long the server gives a statement up, and what it has done of it back; a little before we do."""

SETTINGS = {
    "jit": "off",
    # A plan that is kept from when a table was empty would go through the whole of it in a burst: rows are looked up.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "statement_timeout": f"{SERVER_SECONDS:g}s",
    # A process that was stopped in the middle of a transaction keeps its locks no longer than this.
    "idle_in_transaction_session_timeout": "5s",
}
"""What holds for every session, or for every transaction behind a pooler."""

_SET = "SELECT " + ", ".join(f"set_config('{name}', '{value}', false)" for name, value in SETTINGS.items())
_SET_LOCAL = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in SETTINGS.items())


class Session(asyncpg.Connection[asyncpg.Record] if TYPE_CHECKING else asyncpg.Connection):  # type: ignore[misc]
    """A connection that knows its socket."""

    def __init__(self, protocol: Any, transport: asyncio.Transport, *others: Any) -> None:
        super().__init__(protocol, transport, *others)
        self.socket: socket.socket | None = transport.get_extra_info("socket")


class Shared(Session):
    """A connection whose server is another for each transaction; it must keep no statement prepared.

    Our SETTINGS come with each transaction. What asyncpg sets besides, when it asks what an array is
    made of, is `jit` as well, which may stay off on the pooler's servers.
    """

    async def execute(self, query: str, *arguments: Any, **options: Any) -> Any:
        """Without arguments it is one message, which a server has to itself; BEGIN is one."""
        if arguments:
            return await self._alone(partial(super().execute, query, *arguments, **options))
        if query.startswith("BEGIN"):
            query = f"{query.rstrip(';')}; {_SET_LOCAL}"
        return await super().execute(query, **options)

    async def executemany(self, *arguments: Any, **options: Any) -> None:
        """In a transaction."""
        await self._alone(partial(super().executemany, *arguments, **options))

    async def fetch(self, *arguments: Any, **options: Any) -> Any:
        """In a transaction."""
        return await self._alone(partial(super().fetch, *arguments, **options))

    async def fetchmany(self, *arguments: Any, **options: Any) -> Any:
        """In a transaction."""
        return await self._alone(partial(super().fetchmany, *arguments, **options))

    async def fetchrow(self, *arguments: Any, **options: Any) -> Any:
        """In a transaction."""
        return await self._alone(partial(super().fetchrow, *arguments, **options))

    async def fetchval(self, *arguments: Any, **options: Any) -> Any:
        """In a transaction."""
        return await self._alone(partial(super().fetchval, *arguments, **options))

    async def _alone(self, statement: Callable[[], Awaitable[T]]) -> T:
        """Do it in the transaction there is, or in one of its own, which ends with it."""
        if self.is_in_transaction():
            return await statement()
        await self.execute("BEGIN")
        try:
            result = await statement()
        except asyncpg.PostgresError:
            if not self.is_closed():
                await self.execute("ROLLBACK")
            raise
        except BaseException:
            self.terminate()  # what became of the statement is not known
            raise
        await self.execute("COMMIT")
        return result


class Opener:
    """Opens connections of the kind that suits what is at the other end.

    With "auto" every new connection is looked at, in the round trip that makes our SETTINGS: PostgreSQL tells a client
    the number of its server process, and a pooler, which has no server for it yet, makes one up. So nothing depends on
    what the pooler is, on what was there before, or on parameters that it might refuse. A pooler in session mode cannot
    be told from one that shares: it is taken for the latter, unless the setting says "session".
    """

    def __init__(self, pooler: Pooler) -> None:
        self.shared = pooler == "transaction"
        """Whether a pooler shares its servers among us and others, as far as is known."""
        self._looks = pooler == "auto"

    async def open(self, **options: Any) -> Session:
        """What `asyncpg.connect` does, until the connection is of the right kind."""
        while True:
            shared = self.shared
            kind = {"connection_class": Shared, "statement_cache_size": 0} if shared else {"connection_class": Session}
            opened = cast("Session", await asyncpg.connect(**options | kind))
            try:
                found = await self._found(opened, shared)
                if found == shared:
                    return opened
                await opened.close()
            except BaseException:
                opened.terminate()
                raise
            self._learn(found)

    def share(self) -> None:
        """From now on take the servers for shared: one of them did not know a statement that was prepared."""
        if not self.shared or self._looks:
            log.error("pooler_shares", remedy="set DATABASE_POOLER=transaction")
        self.shared, self._looks = True, False

    def _learn(self, shared: bool) -> None:
        if self.shared == shared:
            return
        self.shared = shared
        if shared:
            log.info("pooler_found")
        else:
            log.info("pooler_gone")

    async def _found(self, opened: Session, shared: bool) -> bool:
        """Whether there is a pooler that shares; a session of our own has our SETTINGS afterwards.

        A simple query: one message there and one back, for which any server will do.
        """
        if self._looks:
            rows = await opened.execute(f"{_SET} WHERE pg_backend_pid() = {opened.get_server_pid()}")
            return bool(rows != "SELECT 1")
        if not shared:
            await opened.execute(_SET)
        return shared


def unfit(error: BaseException | None) -> str | None:
    """Why a pooler will never let us work, in a sentence, if that is what this error comes from."""
    while error is not None and not isinstance(error, asyncpg.PostgresConnectionError):
        error = error.__cause__
    if "unsupported startup parameter" in str(error):
        return (
            f"the pooler says: {error}; take the parameter out of DATABASE_URL, or put it into the pooler's "
            "ignore_startup_parameters"
        )
    if "statement pooling mode" in str(error):
        return f"the pooler says: {error}; set its pool_mode to transaction"
    return None
