"""PgBouncer, the real one of Debian, in front of a test's PostgreSQL, and another client of the same pool."""

import asyncio
import os
import pwd
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, quote, urlencode, urlsplit, urlunsplit

import asyncpg

from gembackend.embedded.process import GuardedServer, until_ready
from tests.tools import on_path

MODES = {"transaction": {"default_pool_size": "3"}, "session": {"default_pool_size": "40"}}
"""A mode's own settings. In session mode each client has a server, so there must be as many as there are clients."""
PORT = 6432

SETTINGS = {
    "listen_addr": "",
    "listen_port": str(PORT),
    "auth_type": "trust",
    "admin_users": "postgres",
    "max_client_conn": "500",
    "server_round_robin": "1",
    "server_login_retry": "0.2",
    "server_idle_timeout": "20",
}
"""As in Debian, but that servers are taken in turn."""


class PgBouncer:
    """One PgBouncer before all databases of the PostgreSQL that `upstream` names, in a directory of its own."""

    def __init__(self, home: Path, upstream: str, mode: str, **settings: str) -> None:
        """`settings` are pgbouncer.ini's, laid over the mode's. Skips the test where PgBouncer is not installed."""
        self._program = on_path("pgbouncer", "pgbouncer")
        self._home = home
        self._upstream = upstream
        self._settings = {**SETTINGS, "pool_mode": mode, **MODES.get(mode, {}), **settings}
        self._server: GuardedServer | None = None

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self._home / f".s.PGSQL.{PORT}"

    async def start(self) -> None:
        """Start it and wait until it listens."""
        self._home.mkdir(exist_ok=True)
        there = parse_qs(urlsplit(self._upstream).query)
        users = self._home / "userlist.txt"
        users.write_text('"postgres" ""\n')
        every = {"unix_socket_dir": str(self._home), "auth_file": str(users), **self._settings}
        configuration = self._home / "pgbouncer.ini"
        configuration.write_text(
            f"[databases]\n* = host={there['host'][0]} port={there['port'][0]}\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in every.items())
        )
        command = [*_identity(self._home), self._program, str(configuration)]
        server = self._server = GuardedServer(
            command, log=self._home / "pgbouncer.log", stop_signal=signal.SIGTERM, grace=5
        )
        console = await until_ready(server, "PgBouncer", self.console, (OSError, asyncpg.PostgresConnectionError))
        await console.close()

    async def stop(self) -> None:
        """End it and every connection through it; harmless when it does not run."""
        if self._server:
            await self._server.stop()

    def url(self, direct: str) -> str:
        """A URL of the database that `direct` names, through here."""
        here = urlencode({"host": str(self._home), "port": PORT}, quote_via=quote)
        return urlunsplit(urlsplit(direct)._replace(query=here))

    async def console(self) -> asyncpg.Connection:
        """Its own console, which knows no extended queries."""
        return await asyncpg.connect(host=str(self._home), port=PORT, user="postgres", database="pgbouncer")


def _identity(home: Path) -> list[str]:
    """Words before a command that make it run as somebody but root, as whom PgBouncer does not run; it keeps the right
    to pass, for PostgreSQL's socket is in a directory of root's."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    setpriv = shutil.which("setpriv")
    assert setpriv is not None, "setpriv, of util-linux, is everywhere where PostgreSQL's tests run as root"
    who = [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    return [setpriv, *who, "--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--"]


@contextmanager
def _cut_at_last(connection: asyncpg.Connection) -> Iterator[None]:
    try:
        yield
    finally:
        connection.terminate()


@asynccontextmanager
async def stranger(url: str, clients: int = 2) -> AsyncIterator[None]:
    """Others, who use the same pool without a thought for anybody: between any two messages of somebody's they put
    another statement in the place of the unnamed one, and what they set or prepare they leave behind."""

    async def bother() -> None:
        while True:
            connection = await asyncpg.connect(url, statement_cache_size=0)
            # The strangers' own statements fail by each other's fault.
            with _cut_at_last(connection), suppress(asyncpg.PostgresError, asyncpg.InternalClientError):
                while True:
                    await connection.fetch("SELECT set_config('jit', 'on', false), $1::text", "of a stranger")
                    await connection.execute("DEALLOCATE ALL")
                    await connection.execute("PREPARE __asyncpg_stmt_1__ AS SELECT 'prepared by a stranger'")

    tasks = [asyncio.create_task(bother(), name="stranger") for _ in range(clients)]
    try:
        yield
        assert not any(task.done() for task in tasks), "the strangers have gone on until the end"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
