"""The SQL of one-time codes. Each function is one statement, and each statement decides alone.

What happens to a phone that nobody has is what happens to any other, down to the rows written. A phone has for each
purpose one code that strangers may have asked for, and one that was asked for from a place that its user is known from
(or with a live session of the user), which nothing that strangers do replaces.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal
from uuid import UUID

from gembackend.auth.rules import (
    DAILY_CODE_FAILURES,
    DAILY_STRANGE_REPEATS,
    DAILY_UNKNOWN_FAILURES,
    STRANGE_PLACES,
    Purpose,
    Requester,
)
from gembackend.plumbing.postgres import Connection


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


Refusal = Literal["refused", "exhausted"]
"""A code that is not right, or not any more; or one that was not looked at, since too many have been wrong today."""


async def issue_code(
    connection: Connection,
    purpose: Purpose,
    phone: str,
    phone_key: bytes,
    code_hmac: bytes,
    requester: Requester,
    *,
    password_hash: str | None,
    ttl: int,
    cooldown: int,
    max_attempts: int,
) -> Challenge:
    """Put a new code in the place of the old one, unless a living one was made less than `cooldown` seconds ago.

    The code is for the user of the phone, if there is one whose password still is `password_hash` (None: any). Without
    a password, each further code that is asked for within the hour has to wait twice as long as the one before, up to
    the life of a code: so somebody who asks again and again cannot keep a code from living long enough to be used.
    """
    row = await connection.fetchrow(
        """
        WITH subject AS (
            SELECT u.id, u.token_version, u.id = $10 OR EXISTS (
                SELECT FROM known_places k WHERE k.user_id = u.id AND k.place = $9) AS known
            FROM users u WHERE u.phone = $3 AND ($6::text IS NULL OR u.password_hash = $6)
        ), slot AS (
            SELECT $2 || CASE WHEN s.known THEN '_known' ELSE '' END AS name, s.id, s.token_version
            FROM (SELECT) one LEFT JOIN subject s ON true
        ), issued AS (
            INSERT INTO otp_challenges AS c
                (phone_key, purpose, user_id, token_version, code_hmac, expires_at, asked_from)
            SELECT $1, s.name, s.id, s.token_version, $4, now() + $5::interval, $9 FROM slot s
            ON CONFLICT (phone_key, purpose) DO UPDATE SET
                user_id = excluded.user_id, token_version = excluded.token_version, code_hmac = excluded.code_hmac,
                expires_at = excluded.expires_at, asked_from = excluded.asked_from, created_at = now(),
                used_at = NULL, attempts = 0, strange_attempts = 0,
                renewals = CASE WHEN c.used_at IS NOT NULL OR c.created_at < now() - interval '1 hour' THEN 0
                    ELSE least(c.renewals + 1, 16) END
            WHERE c.created_at <= clock_timestamp()
                    - CASE WHEN $6 IS NULL THEN least($7::interval * 2 ^ c.renewals, $5) ELSE $7 END
                OR c.used_at IS NOT NULL OR c.expires_at <= now() OR ($6 IS NOT NULL AND c.attempts >= $8)
                OR (c.user_id, c.token_version) IS DISTINCT FROM (excluded.user_id, excluded.token_version)
            RETURNING user_id
        ), replaced AS (
            UPDATE otp_challenges c SET used_at = now() FROM slot s
            WHERE c.phone_key = $1 AND c.purpose = $2 AND c.purpose <> s.name AND c.asked_from = $9
                AND c.used_at IS NULL AND EXISTS (SELECT FROM issued)
        )
        SELECT EXISTS (SELECT FROM issued) AS issued, (SELECT user_id FROM issued) AS user_id, (
            SELECT ceil(extract(epoch FROM c.created_at - clock_timestamp()
                + CASE WHEN $6 IS NULL THEN least($7 * 2 ^ c.renewals, $5) ELSE $7 END))::integer
            FROM otp_challenges c, slot s WHERE c.phone_key = $1 AND c.purpose = s.name) AS retry_after
        """,
        phone_key,
        purpose.value,
        phone,
        code_hmac,
        timedelta(seconds=ttl),
        password_hash,
        timedelta(seconds=cooldown),
        max_attempts,
        requester.place,
        requester.session_of,
    )
    assert row is not None
    return Challenge(row["issued"], row["user_id"], max(1, row["retry_after"] or cooldown))


async def withdraw_code(connection: Connection, phone_key: bytes, code_hmac: bytes) -> None:
    """End a code that could not be delivered, so that another may be asked for at once."""
    await connection.execute(
        "UPDATE otp_challenges SET used_at = now() WHERE phone_key = $1 AND code_hmac = $2", phone_key, code_hmac
    )


async def redeem_code(
    connection: Connection,
    purpose: Purpose,
    phone: str,
    phone_key: bytes,
    code_hmac: bytes,
    requester: Requester,
    *,
    max_attempts: int,
    new_password_hash: str | None,
) -> Redeemed | Refusal:
    """Use up a code, which verifies the phone, makes the place known and lifts a lock there.

    A new password, if there is one, is stored, ends every session and makes every other place unknown. The function
    works under the lock of the phone's failures, which makes a code's attempts, its one use and the day's failures
    exact under any number of parallel tries.
    """
    row = await connection.fetchrow(
        """
        SELECT outcome, user_id, token_version
        FROM redeem_code($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        """,
        purpose.value,
        phone,
        phone_key,
        requester.place,
        requester.session_of,
        code_hmac,
        new_password_hash,
        max_attempts,
        DAILY_CODE_FAILURES,
        DAILY_UNKNOWN_FAILURES,
        STRANGE_PLACES,
        DAILY_STRANGE_REPEATS,
    )
    assert row is not None
    if row["outcome"] == "redeemed":
        return Redeemed(row["user_id"], row["token_version"])
    return "exhausted" if row["outcome"] == "exhausted" else "refused"
