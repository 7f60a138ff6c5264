"""The SQL of dead letters: prompts that failed for good."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gembackend.plumbing.postgres import Connection


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


REPLAYED_AT_ONCE = 500
"""How many one statement queues again: it takes a fraction of what it may."""


async def replay(connection: Connection, prompt_ids: Sequence[UUID] | None) -> list[UUID]:
    """Queue these dead letters again, each at the tail of its room, with all its attempts; None: those REPLAYED_AT_ONCE
    that failed first, so that called until nothing is left it queues all of them, in the order of their rooms.

    Their quota was given back when they failed and is not taken again. The sweeper finds them within seconds.
    """
    rows = await connection.fetch(
        """
        WITH chosen AS (
            SELECT id, chatroom_id, sequence FROM prompts
            WHERE id = ANY (coalesce($1::uuid[], ARRAY (
                SELECT id FROM prompts WHERE status = 'failed' ORDER BY finished_at, sequence LIMIT $2
            ))) AND status = 'failed' ORDER BY id FOR UPDATE
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
        REPLAYED_AT_ONCE,
    )
    return [row["id"] for row in rows]
