"""The SQL of one-time codes and failed passwords. Each function is one statement, and each statement decides alone.

What happens to a phone that nobody has is what happens to any other, down to the rows written.
"""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from gembackend.auth.rules import DAILY_CODE_FAILURES, LOCK_FAILURES, LOCK_SECONDS, Purpose
from gembackend.plumbing.postgres import Connection

_LOCK = timedelta(seconds=LOCK_SECONDS)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What came of asking for a code: `issued` to a user or to nobody, or told to wait `retry_after` seconds."""

    issued: bool
    user_id: UUID | None
    retry_after: int


@dataclass(frozen=True, slots=True)
class Redeemed:
    """Whose code it was, and the token version of that user now."""

    user_id: UUID
    token_version: int


async def password_refused(connection: Connection, phone_key: bytes) -> None:
    """Count a wrong password against a phone; a lock that is on is not made longer."""
    await connection.execute(
        """
        INSERT INTO login_failures AS f (phone_key, failures, failed_at) VALUES ($1, 1, now())
        ON CONFLICT (phone_key) DO UPDATE SET
            failures = CASE WHEN f.failed_at <= now() - $2::interval THEN 1 ELSE least(f.failures + 1, $3) END,
            failed_at = CASE WHEN f.failures >= $3 AND f.failed_at > now() - $2 THEN f.failed_at ELSE now() END
        """,
        phone_key,
        _LOCK,
        LOCK_FAILURES,
    )


async def password_accepted(connection: Connection, phone_key: bytes) -> bool:
    """Forget the wrong passwords of a phone after a right one; False when they have locked it.

    A right password that comes while wrong ones are being counted is judged before or after each of them, so that
    never more than LOCK_FAILURES of any number of parallel tries learn anything.
    """
    accepted: bool = await connection.fetchval(
        """
        WITH forgiven AS (
            DELETE FROM login_failures
            WHERE phone_key = $1 AND NOT (failures >= $3 AND failed_at > now() - $2::interval)
        )
        SELECT NOT EXISTS (
            SELECT FROM login_failures WHERE phone_key = $1 AND failures >= $3 AND failed_at > now() - $2)
        """,
        phone_key,
        _LOCK,
        LOCK_FAILURES,
    )
    return accepted


async def issue_code(
    connection: Connection,
    purpose: Purpose,
    phone: str,
    phone_key: bytes,
    code_hmac: bytes,
    *,
    password_hash: str | None,
    ttl: int,
    cooldown: int,
    max_attempts: int,
) -> Challenge:
    """Put a new code in the place of the old one, unless a living one was made less than `cooldown` seconds ago.

    The code is for the user of the phone, if there is one whose password still is `password_hash` (None: any).
    """
    row = await connection.fetchrow(
        """
        WITH subject AS (
            SELECT id, token_version FROM users WHERE phone = $3 AND ($6::text IS NULL OR password_hash = $6)
        ), issued AS (
            INSERT INTO otp_challenges AS c (phone_key, purpose, user_id, token_version, code_hmac, expires_at)
            SELECT $1, $2, s.id, s.token_version, $4, now() + $5::interval
            FROM (SELECT) one LEFT JOIN subject s ON true
            ON CONFLICT (phone_key, purpose) DO UPDATE SET
                user_id = excluded.user_id, token_version = excluded.token_version, code_hmac = excluded.code_hmac,
                expires_at = excluded.expires_at, created_at = now(), used_at = NULL, attempts = 0
            WHERE c.created_at <= clock_timestamp() - $7::interval
                OR c.used_at IS NOT NULL OR c.expires_at <= now() OR c.attempts >= $8
                OR (c.user_id, c.token_version) IS DISTINCT FROM (excluded.user_id, excluded.token_version)
            RETURNING user_id
        )
        SELECT EXISTS (SELECT FROM issued) AS issued, (SELECT user_id FROM issued) AS user_id,
            (SELECT ceil(extract(epoch FROM created_at + $7 - now()))::integer FROM otp_challenges
             WHERE phone_key = $1 AND purpose = $2) AS retry_after
        """,
        phone_key,
        purpose.value,
        phone,
        code_hmac,
        timedelta(seconds=ttl),
        password_hash,
        timedelta(seconds=cooldown),
        max_attempts,
    )
    assert row is not None
    return Challenge(row["issued"], row["user_id"], max(1, row["retry_after"] or cooldown))


async def withdraw_code(connection: Connection, purpose: Purpose, phone_key: bytes, code_hmac: bytes) -> None:
    """End a code that could not be delivered, so that another may be asked for at once."""
    await connection.execute(
        "UPDATE otp_challenges SET used_at = now() WHERE phone_key = $1 AND purpose = $2 AND code_hmac = $3",
        phone_key,
        purpose.value,
        code_hmac,
    )


async def redeem_code(
    connection: Connection,
    purpose: Purpose,
    phone: str,
    phone_key: bytes,
    code_hmac: bytes,
    *,
    max_attempts: int,
    new_password_hash: str | None,
) -> Redeemed | None:
    """Use up a code, which verifies the phone and lifts a lock; None when it is not right, or not any more.

    A new password, if there is one, is stored and ends every session. The lock of the code's row makes its attempts,
    its one use and the day's failures exact under any number of parallel tries.
    """
    row = await connection.fetchrow(
        """
        WITH tried AS (
            UPDATE otp_challenges SET
                attempts = attempts + 1,
                used_at = CASE WHEN code_hmac = $3 THEN now() END,
                failures = CASE WHEN failures_on = (now() AT TIME ZONE 'UTC')::date THEN failures ELSE 0 END
                    + CASE WHEN code_hmac = $3 THEN 0 ELSE 1 END,
                failures_on = (now() AT TIME ZONE 'UTC')::date
            WHERE phone_key = $1 AND purpose = $2 AND used_at IS NULL AND expires_at > now() AND attempts < $4
                AND NOT (failures_on = (now() AT TIME ZONE 'UTC')::date AND failures >= $5)
            RETURNING user_id, token_version, used_at IS NOT NULL AS matched
        ), redeemed AS (
            UPDATE users u SET
                verified_at = coalesce(u.verified_at, now()),
                password_hash = coalesce($7, u.password_hash),
                token_version = u.token_version + CASE WHEN $7 IS NULL THEN 0 ELSE 1 END
            FROM tried t
            WHERE t.matched AND u.id = t.user_id AND u.token_version = t.token_version AND u.phone = $6
            RETURNING u.id AS user_id, u.token_version
        ), unlocked AS (
            DELETE FROM login_failures WHERE phone_key = $1 AND EXISTS (SELECT FROM redeemed)
        )
        SELECT user_id, token_version FROM redeemed
        """,
        phone_key,
        purpose.value,
        code_hmac,
        max_attempts,
        DAILY_CODE_FAILURES,
        phone,
        new_password_hash,
    )
    return Redeemed(**row) if row else None


async def sweep(connection: Connection, most: int) -> int:
    """Remove up to `most` codes and as many failures that have meant nothing for a day; how many were removed."""
    removed: int = await connection.fetchval(
        """
        WITH codes AS (
            DELETE FROM otp_challenges WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM otp_challenges WHERE expires_at < now() - interval '1 day'
                LIMIT $1 FOR UPDATE SKIP LOCKED))
            RETURNING 1
        ), failures AS (
            DELETE FROM login_failures WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM login_failures WHERE failed_at < now() - interval '1 day'
                LIMIT $1 FOR UPDATE SKIP LOCKED))
            RETURNING 1
        )
        SELECT (SELECT count(*) FROM codes) + (SELECT count(*) FROM failures)
        """,
        most,
    )
    return removed
