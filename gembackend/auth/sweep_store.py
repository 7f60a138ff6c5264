"""The SQL of forgetting what means nothing any more, a batch at a time; any number of processes may do it at once."""

from datetime import timedelta

from gembackend.auth.rules import KNOWN_DAYS, UNVERIFIED_HOURS
from gembackend.plumbing.postgres import Connection, affected


async def codes(connection: Connection, most: int) -> int:
    """Remove up to `most` codes that ended a day ago; how many were removed."""
    status = await connection.execute(
        """
        DELETE FROM otp_challenges WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM otp_challenges WHERE expires_at < now() - interval '1 day'
            LIMIT $1 FOR UPDATE SKIP LOCKED))
        """,
        most,
    )
    return affected(status)


async def failures(connection: Connection, most: int) -> int:
    """Remove up to `most` counts of wrong passwords, and as many of wrong codes, of two days ago or earlier."""
    removed: int = await connection.fetchval(
        """
        WITH passwords AS (
            DELETE FROM login_failures WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM login_failures WHERE failed_at < now() - interval '1 day'
                LIMIT $1 FOR UPDATE SKIP LOCKED))
            RETURNING 1
        ), codes AS (
            DELETE FROM code_failures WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM code_failures WHERE day < (now() AT TIME ZONE 'UTC')::date - 1
                LIMIT $1 FOR UPDATE SKIP LOCKED))
            RETURNING 1
        )
        SELECT (SELECT count(*) FROM passwords) + (SELECT count(*) FROM codes)
        """,
        most,
    )
    return removed


async def places(connection: Connection, most: int) -> int:
    """Remove up to `most` places where nobody has redeemed a code for KNOWN_DAYS."""
    status = await connection.execute(
        """
        DELETE FROM known_places WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM known_places WHERE seen_at < now() - $2::interval LIMIT $1 FOR UPDATE SKIP LOCKED))
        """,
        most,
        timedelta(days=KNOWN_DAYS),
    )
    return affected(status)


async def unverified_accounts(connection: Connection, most: int) -> int:
    """Remove up to `most` accounts whose phone nobody has verified for UNVERIFIED_HOURS, and whose codes have ended."""
    status = await connection.execute(
        """
        DELETE FROM users WHERE verified_at IS NULL AND id = ANY (ARRAY(
            SELECT u.id FROM users u
            WHERE u.verified_at IS NULL AND u.created_at < now() - $2::interval AND NOT EXISTS (
                SELECT FROM otp_challenges c
                WHERE c.user_id = u.id AND c.used_at IS NULL AND c.expires_at > now())
            ORDER BY u.created_at LIMIT $1 FOR UPDATE SKIP LOCKED))
        """,
        most,
        timedelta(hours=UNVERIFIED_HOURS),
    )
    return affected(status)
