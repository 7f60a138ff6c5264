"""Installations that are wrong in one thing: a role without a right, a Redis set otherwise, a server in disguise."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import asyncpg
import redis

ROLE = "gembackend_check"
PASSWORD = "hush-hush"
GRANTS = f"""
    GRANT USAGE ON SCHEMA public TO {ROLE};
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {ROLE};
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {ROLE};
    REVOKE INSERT, UPDATE, DELETE ON schema_migrations FROM {ROLE};
    REVOKE ALL ON SCHEMA public FROM PUBLIC;
    REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
"""
ACL = ("+@all", "-@admin", "-@dangerous", "+info", "~gembackend:*", "resetchannels", "&gembackend:*")


def as_role(url: str, password: str | None = None) -> str:
    """The same database, for the role."""
    login = ROLE if password is None else f"{ROLE}:{password}"
    return url.replace("postgresql://postgres@", f"postgresql://{login}@")


@asynccontextmanager
async def role(admin: asyncpg.Connection) -> AsyncIterator[None]:
    """The role, with what the service needs and no more."""
    await admin.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
    await admin.execute(GRANTS)
    try:
        yield
    finally:
        await admin.execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


@asynccontextmanager
async def asked_for_passwords(admin: asyncpg.Connection) -> AsyncIterator[None]:
    """A server that asks the role for its password, once it has read its file again: a moment later."""
    hba = Path(await admin.fetchval("SHOW hba_file"))
    kept = hba.read_text()
    hba.write_text(f"local all {ROLE} scram-sha-256\n{kept}")
    try:
        await admin.execute("SELECT pg_reload_conf()")
        yield
    finally:
        hba.write_text(kept)
        await admin.execute("SELECT pg_reload_conf()")


@contextmanager
def redis_as_it_was(url: str) -> Iterator[redis.Redis]:
    """The server to be set otherwise, and afterwards as it was."""
    with redis.Redis.from_url(url) as client:
        try:
            yield client
        finally:
            client.replicaof("NO", "ONE")
            client.config_set("maxmemory", 0)
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("appendonly", "yes")
            client.execute_command("ACL DELUSER", ROLE)


def with_acl(client: redis.Redis, url: str, *rules: str, password: str = PASSWORD) -> str:
    """The URL of the same server for a user that may do what the service does, but for these rules."""
    client.execute_command("ACL SETUSER", ROLE, "reset", "on", f">{PASSWORD}", *ACL, *rules)
    return url.replace("unix://", f"unix://{ROLE}:{password}@")


@asynccontextmanager
async def disguised(socket: Path, old: bytes, new: bytes, listen: Path) -> AsyncIterator[None]:
    """The server behind a socket once more behind another one, where it says `new` wherever it says `old`."""
    assert len(old) == len(new)
    seen = asyncio.Event()

    def disguise(block: bytes) -> bytes:
        if old in block:
            seen.set()
        return block.replace(old, new)

    server = await asyncio.start_unix_server(_relay(socket, disguise), listen)
    try:
        yield
        assert seen.is_set(), "the disguise was never needed"
    finally:
        server.close()


@asynccontextmanager
async def over_tls(socket: Path, context: ssl.SSLContext) -> AsyncIterator[int]:
    """The server behind a socket once more behind a port of 127.0.0.1 that speaks TLS."""
    server = await asyncio.start_server(_relay(socket, bytes), "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def _relay(socket: Path, change: Callable[[bytes], bytes]) -> Callable[..., Coroutine[Any, Any, None]]:
    """Serves a connection with one to the socket, and changes what comes back."""

    async def pass_on(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Callable[[bytes], bytes]
    ) -> None:
        with suppress(ConnectionError):
            while block := await reader.read(2**16):
                writer.write(change(block))
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, upward = await asyncio.open_unix_connection(socket)
        await asyncio.gather(pass_on(reader, upward, bytes), pass_on(upstream, writer, change))

    return serve


def postgres_socket(url: str) -> Path:
    """The socket of a database's server."""
    host = next(part.removeprefix("host=") for part in urlsplit(url).query.split("&") if part.startswith("host="))
    return Path(unquote(host)) / ".s.PGSQL.5432"


def at_socket(url: str, directory: Path) -> str:
    """The same database, behind the socket in another directory."""
    return url.replace(f"host={quote(str(postgres_socket(url).parent))}", f"host={quote(str(directory))}")
