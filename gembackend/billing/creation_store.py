"""The SQL of what is being made at Stripe: a row is there from before the first call until its outcome is stored."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from gembackend.plumbing.postgres import Connection

What = Literal["customer", "checkout"]


@dataclass(frozen=True, slots=True)
class Pending:
    """An attempt to make something at Stripe, first asked for at `begun_at` and last at `asked_at`.

    When it is `doubtful`, its idempotency key is of no more use, and nobody knows what came of it.
    """

    attempt: int
    doubtful: bool
    begun_at: datetime
    asked_at: datetime


async def begin(connection: Connection, user_id: UUID, what: What, key_seconds: float) -> Pending | None:
    """Note that something is about to be asked for; None when there is no such user.

    A key is of use while it is younger than `key_seconds` and Stripe keeps no failure under it.
    """
    row = await connection.fetchrow(
        """
        WITH was AS (
            SELECT asked_at FROM billing_creations WHERE user_id = $1 AND what = $2 FOR NO KEY UPDATE
        ), noted AS (
            INSERT INTO billing_creations AS c (user_id, what) SELECT id, $2 FROM users WHERE id = $1 FOR KEY SHARE
            ON CONFLICT (user_id, what) DO UPDATE SET asked_at = now()
            RETURNING attempt, begun_at, failed OR begun_at < now() - make_interval(secs => $3) AS doubtful
        )
        SELECT attempt, doubtful, begun_at, coalesce((SELECT asked_at FROM was), begun_at) AS asked_at FROM noted
        """,
        user_id,
        what,
        key_seconds,
    )
    return Pending(**row) if row else None


async def go_on(connection: Connection, user_id: UUID, what: What, attempt: int) -> int | None:
    """Begin the attempt after one that came to nothing; the attempt to make, None when there is no such user.

    Whoever else has begun it already is joined, also when it has succeeded meanwhile.
    """
    following: int | None = await connection.fetchval(
        """
        INSERT INTO billing_creations AS c (user_id, what, attempt)
        SELECT id, $2, $3 + 1 FROM users WHERE id = $1 FOR KEY SHARE
        ON CONFLICT (user_id, what) DO UPDATE
            SET attempt = greatest(c.attempt, excluded.attempt), failed = c.failed AND c.attempt > $3, asked_at = now(),
                begun_at = CASE WHEN c.attempt > $3 THEN c.begun_at ELSE now() END
        RETURNING attempt
        """,
        user_id,
        what,
        attempt,
    )
    return following


async def fail(connection: Connection, user_id: UUID, what: What, attempt: int) -> None:
    """Note that Stripe keeps a failure under the key of this attempt."""
    await connection.execute(
        "UPDATE billing_creations SET failed = true WHERE user_id = $1 AND what = $2 AND attempt = $3",
        user_id,
        what,
        attempt,
    )


async def end(connection: Connection, user_id: UUID, *what: What) -> None:
    """Note that what was to be made is stored."""
    await connection.execute(
        "DELETE FROM billing_creations WHERE user_id = $1 AND what = ANY ($2::text[])", user_id, what
    )
