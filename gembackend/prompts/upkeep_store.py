"""The SQL of upkeep: what is waiting, what was overlooked, what gave up."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gembackend.plumbing.postgres import Connection

_SWEEPER_LOCK = 7304612205398232


@dataclass(frozen=True, slots=True)
class Backlog:
    """Unfinished prompts in the database, and the age in seconds of the oldest that is due."""

    unfinished: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A prompt that failed for good. The text of the prompt is not part of it."""

    id: UUID
    user_id: UUID
    chatroom_id: UUID
    error_code: str
    error_message: str
    attempts: int
    created_at: datetime
    finished_at: datetime


async def lead_sweep(connection: Connection) -> bool:
    """Become the one sweeper among all processes until the transaction ends; False when another is."""
    return bool(await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _SWEEPER_LOCK))


async def overlooked_rooms(connection: Connection, waited_seconds: float, most: int) -> list[tuple[UUID, datetime]]:
    """Rooms whose due head has waited so long, or whose running head has outlived its lease, longest wait first.

    With each comes the time since when it has waited.
    """
    rows = await connection.fetch(
        """
        SELECT chatroom_id, since FROM (
            SELECT p.chatroom_id, p.available_at AS since FROM prompts p
            WHERE p.status = 'queued' AND p.available_at <= now() - make_interval(secs => $1)
              AND NOT EXISTS (
                  SELECT FROM prompts earlier
                  WHERE earlier.chatroom_id = p.chatroom_id AND earlier.status IN ('queued', 'running')
                    AND earlier.sequence < p.sequence)
            UNION ALL
            SELECT p.chatroom_id, p.lease_until FROM prompts p
            WHERE p.status = 'running' AND p.lease_until < now()
        ) overlooked
        ORDER BY since LIMIT $2
        """,
        waited_seconds,
        most,
    )
    return [(row["chatroom_id"], row["since"]) for row in rows]


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


async def finished_among(connection: Connection, prompt_ids: Sequence[UUID]) -> list[UUID]:
    """Those of the prompts that nothing more will happen to; one that is not accepted yet is none of them."""
    rows = await connection.fetch(
        """
        SELECT id FROM prompts WHERE id = ANY ($1::uuid[]) AND status NOT IN ('queued', 'running')
        """,
        prompt_ids,
    )
    return [row["id"] for row in rows]


async def room_states(connection: Connection, chatroom_ids: Sequence[UUID]) -> dict[UUID, tuple[int, ...]]:
    """For each of the rooms that exist, numbers of which one is another after any change of its prompts."""
    rows = await connection.fetch(
        """
        SELECT r.id, r.last_sequence, unfinished.count, unfinished.fences
        FROM chatrooms_metadata r, LATERAL (
            SELECT count(*) AS count, coalesce(sum(p.fence + (p.status = 'running')::integer), 0)::bigint AS fences
            FROM prompts p WHERE p.chatroom_id = r.id AND p.status IN ('queued', 'running')
        ) unfinished
        WHERE r.id = ANY ($1::uuid[])
        """,
        chatroom_ids,
    )
    return {row["id"]: (row["last_sequence"], row["count"], row["fences"]) for row in rows}


async def dead_letters(connection: Connection, most: int) -> list[DeadLetter]:
    """Up to `most` prompts that failed for good, newest first."""
    rows = await connection.fetch(
        """
        SELECT id, user_id, chatroom_id, error_code, error_message, attempts, created_at, finished_at
        FROM prompts WHERE status = 'failed' ORDER BY finished_at DESC LIMIT $1
        """,
        most,
    )
    return [DeadLetter(**row) for row in rows]


async def replay(connection: Connection, prompt_ids: Sequence[UUID] | None) -> list[UUID]:
    """Queue these dead letters again (None: all of them), each at the tail of its room, with all its attempts.

    Their quota was given back when they failed and is not taken again. The sweeper finds them within seconds.
    """
    rows = await connection.fetch(
        """
        WITH chosen AS (
            SELECT id, chatroom_id, sequence FROM prompts
            WHERE status = 'failed' AND ($1::uuid[] IS NULL OR id = ANY ($1)) ORDER BY id FOR UPDATE
        ), placed AS (
            SELECT id, chatroom_id, row_number() OVER (PARTITION BY chatroom_id ORDER BY sequence) AS place FROM chosen
        ), rooms AS (
            UPDATE chatrooms_metadata r SET last_sequence = r.last_sequence + added.count
            FROM (SELECT chatroom_id, count(*) AS count FROM chosen GROUP BY chatroom_id) added
            WHERE r.id = added.chatroom_id
            RETURNING r.id, r.last_sequence - added.count AS tail
        )
        UPDATE prompts p
        SET status = 'queued', sequence = rooms.tail + placed.place, attempts = 0, takeovers = 0, available_at = now(),
            error_code = NULL, error_message = NULL, finished_at = NULL, charged_on = NULL
        FROM placed JOIN rooms ON rooms.id = placed.chatroom_id
        WHERE p.id = placed.id
        RETURNING p.id
        """,
        prompt_ids,
    )
    return [row["id"] for row in rows]
