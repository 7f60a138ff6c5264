"""The queue's statements beside many waiting prompts of which the statistics know nothing."""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg

from gembackend.embedded.postgres import EmbeddedPostgres, migrate
from gembackend.prompts import store, sweep_store

TIMES = 20
ROOMS = 64


async def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(prog="ops/bench/burst", add_help=False)
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--each", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        server = EmbeddedPostgres(Path(directory), settings={"fsync": "off", "autovacuum": "off"})
        url = await server.start()
        try:
            await migrate(url)
            connection = await asyncpg.connect(url, server_settings={"jit": "off"})
            print(f"{'analysed while':<24}{'':<20}{'median ms':>12}{'longest ms':>12}")
            for answered in (0, options.prompts // 5):
                await _fill(connection, answered, options.prompts // options.each, options.each)
                await _measure(connection, "all was answered" if answered else "it was empty")
            await connection.close()
        finally:
            await server.stop()


async def _fill(connection: asyncpg.Connection, answered: int, rooms: int, each: int) -> None:
    await connection.execute(
        """
        TRUNCATE users CASCADE;
        INSERT INTO users (id, phone, password_hash) VALUES (gen_random_uuid(), '+14155550100', 'x');
        """
    )
    await _rooms(connection, "old", answered // 200)
    await connection.execute(
        """
        INSERT INTO prompts (id, user_id, chatroom_id, sequence, content, status, request_id, finished_at)
        SELECT gen_random_uuid(), r.user_id, r.id, n, 'hi', 'answered', 'bench', now()
        FROM chatrooms_metadata r, generate_series(1, 200) n
        """
    )
    await connection.execute("ANALYZE")
    await _rooms(connection, "new", rooms)
    await connection.execute(
        """
        INSERT INTO prompts (id, user_id, chatroom_id, sequence, content, status, request_id, available_at)
        SELECT gen_random_uuid(), r.user_id, r.id, n, 'hi', 'queued', 'bench', now() - interval '1 minute'
        FROM chatrooms_metadata r, generate_series(1, $1::integer) n WHERE r.name = 'new'
        """,
        each,
    )


async def _rooms(connection: asyncpg.Connection, name: str, count: int) -> None:
    await connection.execute(
        """
        INSERT INTO chatrooms_metadata (id, user_id, name)
        SELECT gen_random_uuid(), (SELECT id FROM users), $1 FROM generate_series(1, $2::integer)
        """,
        name,
        count,
    )


async def _measure(connection: asyncpg.Connection, state: str) -> None:
    found = await connection.fetch("SELECT id FROM chatrooms_metadata WHERE name = 'new' LIMIT $1", ROOMS)
    rooms = [row["id"] for row in found]

    async def claim() -> None:
        claimed = await store.claim(
            connection, rooms, lease_seconds=30, max_attempts=5, history_messages=20, suspects=1, owner="bench"
        )
        assert len(claimed) == len(rooms)

    async def sweep() -> None:
        await sweep_store.waiting_rooms(connection, 2.0, 1000)

    async def count() -> None:
        await sweep_store.backlog(connection)

    for name, work in ((f"claim of {ROOMS} rooms", claim), ("search of a sweep", sweep), ("count", count)):
        took = [await _timed(connection, work) for _ in range(TIMES)]
        print(f"{state:<24}{name:<20}{statistics.median(took):>12.1f}{max(took):>12.1f}")


async def _timed(connection: asyncpg.Connection, work: Callable[[], Awaitable[None]]) -> float:
    """Milliseconds of doing it; what it did is undone."""
    doing = connection.transaction()
    await doing.start()
    begun = time.perf_counter()
    await work()
    took = (time.perf_counter() - begun) * 1000
    await doing.rollback()
    return took


if __name__ == "__main__":
    asyncio.run(main())
