"""The SQL of taking a prompt back."""

from dataclasses import dataclass
from uuid import UUID

from gembackend.plumbing.postgres import Connection


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What came of cancelling: whether the user has such a prompt, and its room if it was cancelled just now."""

    found: bool
    chatroom_id: UUID | None


async def cancel(connection: Connection, user_id: UUID, prompt_id: UUID) -> Cancellation:
    """End a prompt that has not finished, in one statement; before its first attempt it costs its user nothing."""
    row = await connection.fetchrow(
        """
        WITH wanted AS (
            SELECT id, status IN ('queued', 'running') AS unfinished,
                   CASE WHEN status = 'queued' AND attempts = 0 THEN charged_on END AS refunded_to
            FROM prompts WHERE id = $2 AND user_id = $1 FOR UPDATE
        ), changed AS (
            UPDATE prompts p
            SET status = 'cancelled', finished_at = now(), lease_until = NULL, leased_by = NULL,
                charged_on = CASE WHEN w.refunded_to IS NULL THEN p.charged_on END
            FROM wanted w WHERE p.id = w.id AND w.unfinished
            RETURNING p.chatroom_id, p.user_id, w.refunded_to
        ), refunded AS (
            UPDATE prompt_usage u SET used = u.used - 1
            FROM changed c WHERE u.user_id = c.user_id AND u.day = c.refunded_to
        )
        SELECT EXISTS (SELECT FROM wanted) AS found, (SELECT chatroom_id FROM changed) AS chatroom_id
        """,
        user_id,
        prompt_id,
    )
    assert row is not None
    return Cancellation(row["found"], row["chatroom_id"])
