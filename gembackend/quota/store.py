"""What a user has used of today's quota. The charge itself is part of accepting (`accept_prompts` in sql/)."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gembackend.plumbing.postgres import Connection
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
