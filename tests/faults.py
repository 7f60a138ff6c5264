"""What tests of faults do behind the engine's back: prompts without hints, foreign claims, locked rows."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
from redis.exceptions import ResponseError

from gembackend.messages.rules import NewPrompt
from gembackend.plumbing.ids import new_id
from gembackend.prompts import store
from gembackend.prompts.store import Claimed
from gembackend.prompts.stream import GROUP, STREAM
from tests.engine import Engine
from tests.processes import until


async def queued(engine: Engine, room: tuple[UUID, UUID], text: str) -> UUID:
    """A prompt that is accepted but not hinted."""
    prompt_id = new_id()
    async with engine.database.connection() as connection:
        await store.accept(connection, [NewPrompt(prompt_id, *room, text, None, "test")], 5, 20, 100)
    return prompt_id


async def claim(connection: asyncpg.Connection, *rooms: UUID, attempts: int = 5, suspects: int = 1) -> list[Claimed]:
    """Claim as a process does that is not the engine under test."""
    return await store.claim(
        connection,
        rooms,
        lease_seconds=30,
        max_attempts=attempts,
        history_messages=20,
        suspects=suspects,
        owner="somebody",
    )


async def leases_run_out(connection: asyncpg.Connection) -> None:
    """As if every lease had ended a second ago."""
    await connection.execute("UPDATE prompts SET lease_until = now() - interval '1 second' WHERE status = 'running'")


@asynccontextmanager
async def row_locked(connection: asyncpg.Connection, prompt_id: UUID) -> AsyncIterator[None]:
    """A prompt's row, held by somebody else."""
    async with connection.transaction():
        await connection.execute("SELECT FROM prompts WHERE id = $1 FOR UPDATE", prompt_id)
        yield


@asynccontextmanager
async def commits_held(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Nothing can be stored for the moment, though everything can be read: whoever stores waits."""
    async with connection.transaction():
        await connection.execute("LOCK TABLE prompt_usage IN SHARE MODE")
        yield


async def somebody_waits(engine: Engine) -> None:
    """Wait until a statement waits for a lock."""

    async def waits() -> bool:
        return bool(await engine.fetch("SELECT count(*) FROM pg_locks WHERE NOT granted"))

    await until(waits, "a statement that waits")


async def entries(engine: Engine) -> tuple[int, int]:
    """How many entries the stream has, and how many of them were read and not acknowledged."""
    length = int(await engine.redis.xlen(STREAM))
    return length, int((await engine.redis.xpending(STREAM, GROUP))["pending"])


async def at_rest(engine: Engine) -> None:
    """Wait until the stream has nothing in it, and nothing pending."""

    async def empty() -> bool:
        try:
            return await entries(engine) == (0, 0)
        except ResponseError:
            return False  # emptied a moment ago, and the group is not there yet

    await until(empty, "the stream empty")
