"""PostgreSQL refuses the service's login while it works and when it starts."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.acceptance.accounting import account
from tests.acceptance.posting import Posting
from tests.acceptance.site import Site
from tests.logins import logging_in, role_with_password
from tests.servers import with_database

PASSWORD = "sesame-open-40"
ROOMS = 6


@pytest.fixture
async def admin(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A superuser who is not in the test's database."""
    connection = await asyncpg.connect(with_database(database_url, "postgres"))
    yield connection
    await connection.close()


async def test_a_login_refused_under_load_is_an_outage_and_nothing_is_lost(
    site: Site, admin: asyncpg.Connection, database_url: str
) -> None:
    name = urlsplit(database_url).path[1:]
    role = f"chat_{name}"
    await role_with_password(admin, role, PASSWORD)
    process = await site.start(DATABASE_URL=logging_in(database_url, role, PASSWORD))
    user = await site.user(process)
    posting = Posting(process, user, [await user.room(process) for _ in range(ROOMS)])
    closing = f"ALTER DATABASE {name} ALLOW_CONNECTIONS"
    refusals = [  # what refuses the login, what may be done once nobody is logged in, and what allows it again
        ([f"ALTER ROLE {role} PASSWORD 'rotated'"], [], [f"ALTER ROLE {role} PASSWORD '{PASSWORD}'"]),
        ([f"ALTER ROLE {role} NOLOGIN"], [], [f"ALTER ROLE {role} LOGIN"]),
        ([f"ALTER ROLE {role} RENAME TO gone_{role}"], [], [f"ALTER ROLE gone_{role} RENAME TO {role}"]),
        (
            [f"{closing} false"],
            [f"ALTER DATABASE {name} RENAME TO gone_{name}"],
            [f"ALTER DATABASE gone_{name} RENAME TO {name}", f"{closing} true"],
        ),
    ]

    async def execute(statements: list[str]) -> None:
        for statement in statements:
            await admin.execute(statement)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(posting.run())
        for refuse, then, allow in refusals:
            await posting.accepted(10)
            await execute(refuse)
            await admin.fetch("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", name)
            await execute(then)
            await posting.readiness(site, 503)
            await posting.refused(2 * ROOMS)
            await execute(allow)
            await posting.readiness(site, 200)
        await posting.accepted(10)
        posting.enough()

    assert process.running and not process.events("actor_crashed") and not process.events("unexpected_error")
    assert set(posting.refusals) == {"database_unavailable"}
    assert posting.slowest < 3 + posting.lag
    assert PASSWORD not in str(process.lines)
    told = process.events("database_unavailable")
    assert {line["why"] for line in told} >= {
        f'FATAL: password authentication failed for user "{role}"',
        f'FATAL: role "{role}" is not permitted to log in',
        f'FATAL: database "{name}" does not exist',
    }
    assert all(line["where"].endswith(f", database {name}") for line in told)
    await site.all_finished()
    result = await account(site, posting.told)
    assert result.clean and result.answered == result.accepted
    await site.at_rest()


async def test_a_start_waits_for_a_database_that_is_not_there_yet_and_says_why(
    site: Site, admin: asyncpg.Connection, database_url: str
) -> None:
    name = urlsplit(database_url).path[1:]
    await admin.execute(f"ALTER DATABASE {name} RENAME TO later_{name}")
    process = await site.begin()
    awaited = await process.logged("database_awaited")
    assert awaited["why"] == f'FATAL: database "{name}" does not exist'
    await admin.execute(f"ALTER DATABASE later_{name} RENAME TO {name}")
    await process.ready()
    assert (await site.get(process, "/readyz")).status == 200
