"""Roles that PostgreSQL asks for a password, as it does not ask its superuser in tests."""

from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg

from tests.processes import until


async def role_with_password(connection: asyncpg.Connection, name: str, password: str) -> None:
    """Make a role that can do all the superuser can, but has to log in; returns once the server asks it to."""
    await connection.execute(f"CREATE ROLE {name} LOGIN SUPERUSER PASSWORD '{password}'")
    rules = Path(await connection.fetchval("SHOW hba_file"))
    rules.write_text(f"local all {name} scram-sha-256\n{rules.read_text()}")
    await connection.execute("SELECT pg_reload_conf()")
    socket = (await connection.fetchval("SHOW unix_socket_directories")).strip('"')
    port = int(await connection.fetchval("SHOW port"))

    async def asked() -> bool:
        try:
            await asyncpg.connect(host=socket, port=port, user=name, password="not this", database="postgres")
        except asyncpg.InvalidPasswordError:
            return True
        return False

    await until(asked, f"{name} asked for a password")


def logging_in(url: str, user: str, password: str = "", database: str | None = None) -> str:
    """The same server for another user, and another database if need be."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    login = user + (f":{quote(password, safe='')}" if password else "")
    host = quote(query["host"][0], safe="")
    return f"postgresql://{login}@{host}:{query['port'][0]}/{database or parts.path[1:]}"
