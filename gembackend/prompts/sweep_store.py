"""The SQL of the sweeper and the finder: what is waiting, what was overlooked, and who looks."""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from gembackend.plumbing.postgres import Connection

LOOKED_AT = 5_000
"""How many waiting prompts one search looks at: some tens of milliseconds at the most."""

Behind = tuple[datetime, UUID]
"""Where a search ended: when the last prompt it looked at became due, and its id."""

_FIRST: Behind = (datetime.min.replace(tzinfo=UTC), UUID(int=0))


@dataclass(frozen=True, slots=True)
class Found:
    """Rooms with work, each with the time since when it has waited, and where to go on if others may be behind."""

    rooms: list[tuple[UUID, datetime]]
    behind: Behind | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """Unfinished prompts in the database, and the age in seconds of the oldest that is due."""

    unfinished: int
    oldest_seconds: float


async def lead(connection: Connection, name: str, holder: str, seconds: float) -> bool:
    """Become or stay the one holder of a task among all processes for so long; False when another is.

    What stands in the row outlives the statement, so that the one who leads may work on what it has found.
    """
    return bool(
        await connection.fetchval(
            """
            INSERT INTO leaders AS l (name, holder, until) VALUES ($1, $2, now() + make_interval(secs => $3))
            ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
                WHERE l.holder = excluded.holder OR l.until < now()
            RETURNING true
            """,
            name,
            holder,
            seconds,
        )
    )


async def resign(connection: Connection, name: str, holder: str) -> None:
    """Give the task to whoever asks next."""
    await connection.execute("DELETE FROM leaders WHERE name = $1 AND holder = $2", name, holder)


async def waiting_rooms(
    connection: Connection, waited_seconds: float, most: int, behind: Behind | None = None
) -> Found:
    """Up to `most` rooms whose due head has waited so long, and as many whose running head has outlived its lease.

    Those come first that have waited longest. However many prompts wait, LOOKED_AT of them are looked at, whether they
    are heads or not; `behind` goes on where an earlier search ended. To be called inside a transaction: the plan is to
    follow the index whatever old statistics say.
    """
    await connection.execute("SET LOCAL enable_bitmapscan = off")
    row = await connection.fetchrow(
        """
        WITH looked_at AS MATERIALIZED (
            SELECT id, chatroom_id, sequence, available_at FROM prompts
            WHERE status = 'queued' AND available_at <= now() - make_interval(secs => $1)
              AND (available_at, id) > ($3::timestamptz, $4::uuid)
            ORDER BY available_at, id LIMIT $5
        ), heads AS (
            SELECT chatroom_id, available_at AS since FROM looked_at l
            WHERE sequence = (
                SELECT p.sequence FROM prompts p
                WHERE p.chatroom_id = l.chatroom_id AND p.status IN ('queued', 'running')
                ORDER BY p.sequence LIMIT 1)
            ORDER BY available_at LIMIT $2
        ), outlived AS (
            SELECT chatroom_id, lease_until AS since FROM prompts
            WHERE status = 'running' AND lease_until < now() ORDER BY lease_until LIMIT $2
        ), found AS (
            SELECT * FROM heads UNION ALL SELECT * FROM outlived
        ), last AS (
            SELECT available_at, id FROM looked_at ORDER BY available_at, id OFFSET $5 - 1
        )
        SELECT (SELECT array_agg(chatroom_id ORDER BY since) FROM found) AS rooms,
               (SELECT array_agg(since ORDER BY since) FROM found) AS since,
               (SELECT available_at FROM last) AS behind_at, (SELECT id FROM last) AS behind_id
        """,
        waited_seconds,
        most,
        *(behind or _FIRST),
        LOOKED_AT,
    )
    assert row is not None
    rooms = list(zip(row["rooms"] or (), row["since"] or (), strict=True))
    more = row["behind_id"] is not None and len(rooms) < most
    return Found(rooms, (row["behind_at"], row["behind_id"]) if more else None)


async def backlog(connection: Connection) -> Backlog:
    """How much is waiting, over all users."""
    row = await connection.fetchrow(
        """
        SELECT count(*) AS unfinished,
               coalesce(extract(epoch FROM now() - min(available_at) FILTER (WHERE status = 'queued')), 0)::float8
                   AS oldest_seconds
        FROM prompts WHERE status IN ('queued', 'running')
        """
    )
    assert row is not None
    return Backlog(row["unfinished"], max(0.0, row["oldest_seconds"]))
