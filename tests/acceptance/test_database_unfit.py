"""PostgreSQL answers, and yet has not the rights, the tables or the writes that were there at the start."""

import asyncio
from functools import partial
from urllib.parse import urlsplit

import asyncpg

from tests.acceptance.accounting import account
from tests.acceptance.posting import Posting
from tests.acceptance.site import Site
from tests.logins import logging_in
from tests.processes import Process, until
from tests.servers import with_database

ROOMS = 4


async def _says(site: Site, process: Process, told: str) -> bool:
    """Whether /readyz is 503 and tells this of the database."""
    answer = await site.get(process, "/readyz")
    return answer.status == 503 and told in answer.body["checks"]["database"].get("detail", "")


async def test_rights_tables_and_writes_that_go_away_under_load_are_an_outage_and_nothing_is_lost(
    site: Site, db: asyncpg.Connection, database_url: str
) -> None:
    name = urlsplit(database_url).path[1:]
    role = f"plain_{name}"
    tables = "ALL ON ALL TABLES IN SCHEMA public"
    await db.execute(f"CREATE ROLE {role} LOGIN; GRANT {tables} TO {role}")
    process = await site.start(DATABASE_URL=logging_in(database_url, role))
    user = await site.user(process)
    posting = Posting(process, user, [await user.room(process) for _ in range(ROOMS)])
    outside = await asyncpg.connect(with_database(database_url, "postgres"))
    ending = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{role}'"
    read_only = f"ALTER DATABASE {name} SET default_transaction_read_only"
    troubles = [  # what goes wrong, what puts it right, and what /readyz says meanwhile
        (f"REVOKE {tables} FROM {role}", f"GRANT {tables} TO {role}", "the schema or the rights that are needed"),
        (f"{read_only} = on", f"{read_only} = off", "takes no writes"),
        ("ALTER TABLE prompts RENAME TO away", "ALTER TABLE away RENAME TO prompts", None),
        ("ALTER SCHEMA public RENAME TO away", "ALTER SCHEMA away RENAME TO public", "the schema or the rights"),
    ]
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(posting.run())
            for trouble, remedy, told in troubles:
                await posting.accepted(10)
                database = db if told != "takes no writes" else outside
                await database.execute(trouble)
                if database is outside:  # a session keeps the settings that it began with
                    await outside.execute(ending)
                if told:
                    await until(partial(_says, site, process, told), told, 5)
                await posting.refused(10 * ROOMS)
                await database.execute(remedy)
                await posting.readiness(site, 200)
            await posting.accepted(10)
            posting.enough()
        assert process.running and not process.events("actor_crashed") and not process.events("unexpected_error")
        assert not process.events("ending_refused")
        assert set(posting.refusals) == {"database_unavailable"}
        await site.all_finished()
        result = await account(site, posting.told)
        assert result.clean and result.answered == result.accepted
        await site.at_rest()
    finally:
        await outside.close()
        await process.kill()
        await db.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
