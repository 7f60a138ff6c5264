"""The SQL of quotas. The charge itself is part of accepting (`accept_prompts` in sql/), refunds are part of what ends
prompts; here is what is left: reading it, and keeping it exact when rooms and accounts are deleted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gembackend.plumbing.postgres import Connection, affected
from gembackend.quota.rules import resets_at


@dataclass(frozen=True, slots=True)
class Usage:
    """Prompts accepted less refunded on this UTC day, and when the day ends."""

    prompts_today: int
    resets_at: datetime


async def usage(connection: Connection, user_id: UUID) -> Usage:
    """Today's usage of a user, by the database's clock."""
    row = await connection.fetchrow(
        """
        SELECT now() AS now, coalesce((
            SELECT used FROM prompt_usage WHERE user_id = $1 AND day = (now() AT TIME ZONE 'UTC')::date
        ), 0) AS used
        """,
        user_id,
    )
    assert row is not None
    return Usage(row["used"], resets_at(row["now"]))


async def give_back(connection: Connection, chatroom_ids: Sequence[UUID]) -> list[UUID]:
    """Refund what never began in rooms that are about to be deleted; tells all their prompts that have not finished.

    To be called in the transaction that deletes the rooms, once it has locked them: then nothing is accepted there any
    more, and no prompt that is returned is claimed, finished or cancelled. A statement of its own, because one that
    had to wait for the rooms would not see what was accepted meanwhile. Prompts are locked in the order of their ids
    and usage after them, as everywhere.
    """
    rows = await connection.fetch(
        """
        WITH unfinished AS MATERIALIZED (
            SELECT p.id, p.user_id, p.charged_on, p.status = 'queued' AND p.attempts = 0 AS never_began
            FROM (
                SELECT found.id FROM unnest($1::uuid[]) AS room (id), LATERAL (
                    SELECT id FROM prompts WHERE chatroom_id = room.id AND status IN ('queued', 'running') OFFSET 0
                ) found ORDER BY found.id
            ) head, LATERAL (
                SELECT id, user_id, charged_on, status, attempts FROM prompts WHERE id = head.id OFFSET 0 FOR UPDATE
            ) p
            WHERE p.status IN ('queued', 'running')
        ), refunds AS MATERIALIZED (
            SELECT user_id, charged_on AS day, count(*)::integer AS units FROM unfinished
            WHERE never_began AND charged_on IS NOT NULL GROUP BY user_id, charged_on ORDER BY user_id, charged_on
        ), held AS MATERIALIZED (
            SELECT u.user_id, u.day, r.units FROM refunds r, LATERAL (
                SELECT user_id, day FROM prompt_usage WHERE user_id = r.user_id AND day = r.day OFFSET 0 FOR UPDATE
            ) u
        ), refunded AS (
            UPDATE prompt_usage u SET used = u.used - h.units
            FROM held h WHERE h.user_id = u.user_id AND h.day = u.day
        )
        SELECT id FROM unfinished
        """,
        chatroom_ids,
    )
    return [row["id"] for row in rows]


async def remember(connection: Connection, user_id: UUID, phone_name: bytes) -> None:
    """Keep what a user who is about to be deleted has used, for the next account of the phone.

    To be called in the transaction that deletes the user, once it has locked the row. The day is the one on which the
    transaction began, or one that began while it waited.
    """
    await connection.execute(
        """
        INSERT INTO phone_usage AS kept (phone_key, day, used, forgiven)
        SELECT $2, day, used, forgiven FROM prompt_usage
        WHERE user_id = $1 AND day >= (now() AT TIME ZONE 'UTC')::date AND (used > 0 OR forgiven > 0)
        ON CONFLICT (phone_key, day) DO UPDATE SET
            used = greatest(kept.used, excluded.used), forgiven = greatest(kept.forgiven, excluded.forgiven)
        """,
        user_id,
        phone_name,
    )


async def carry_over(connection: Connection, user_id: UUID, phone_names: Sequence[bytes]) -> None:
    """Start a new user with what earlier accounts of the phone have used.

    To be called in the transaction that makes the user, after the statement that waits for the earlier account's end.
    One that is made anew before it was verified has it already.
    """
    await connection.execute(
        """
        INSERT INTO prompt_usage (user_id, day, used, forgiven)
        SELECT $1, day, max(used), max(forgiven) FROM phone_usage
        WHERE phone_key = ANY ($2::bytea[]) AND day >= (now() AT TIME ZONE 'UTC')::date GROUP BY day
        ON CONFLICT (user_id, day) DO NOTHING
        """,
        user_id,
        phone_names,
    )


async def sweep(connection: Connection, most: int) -> int:
    """Remove up to `most` rows about phones whose day is over; how many were removed."""
    return affected(
        await connection.execute(
            """
            DELETE FROM phone_usage WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM phone_usage WHERE day < (now() AT TIME ZONE 'UTC')::date
                LIMIT $1 FOR UPDATE SKIP LOCKED))
            """,
            most,
        )
    )
