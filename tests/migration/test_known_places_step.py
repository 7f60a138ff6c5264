"""The step to schema version 7: processes of the versions before go on beside it, and it may be run again."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from gembackend.auth import store
from gembackend.auth.rules import Purpose, Requester
from gembackend.auth.store import Redeemed
from tests.migration.snapshot import SNAPSHOT, dump
from tests.migration.test_migrate import migrate

KEY, PHONE, USER = b"the phone's key", "+15550001111", UUID(int=1)
TTL, PAUSE = timedelta(seconds=300), timedelta(seconds=30)
LOCK = timedelta(seconds=900)
ELSEWHERE = Requester(b"some place")

# The statements of the releases before, as they were.
ISSUE = """
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
    SELECT EXISTS (SELECT FROM issued) AS issued
"""
REDEEM = """
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
    SELECT user_id FROM redeemed
"""
REFUSED = """
    INSERT INTO login_failures AS f (phone_key, failures, failed_at) VALUES ($1, 1, now())
    ON CONFLICT (phone_key) DO UPDATE SET
        failures = CASE WHEN f.failed_at <= now() - $2::interval THEN 1 ELSE least(f.failures + 1, $3) END,
        failed_at = CASE WHEN f.failures >= $3 AND f.failed_at > now() - $2 THEN f.failed_at ELSE now() END
"""


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database of this version, with a user in it."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("INSERT INTO users (id, phone, password_hash) VALUES ($1, $2, 'x')", USER, PHONE)
    yield connection
    await connection.close()


async def redeem(connection: asyncpg.Connection, code: bytes) -> Redeemed | store.Refusal:
    return await store.redeem_code(
        connection, Purpose.LOGIN, PHONE, KEY, code, ELSEWHERE, max_attempts=5, new_password_hash=None
    )


async def test_a_code_of_a_process_of_before_works_at_one_of_now(connection: asyncpg.Connection) -> None:
    assert await connection.fetchval(ISSUE, KEY, "login", PHONE, b"code", TTL, "x", PAUSE, 5)
    assert await redeem(connection, b"wrong") == "refused"
    assert isinstance(await redeem(connection, b"code"), Redeemed)
    assert await connection.fetchval(ISSUE, KEY, "login", PHONE, b"next", TTL, "x", PAUSE, 5)


async def test_a_code_of_a_process_of_now_works_at_one_of_before(connection: asyncpg.Connection) -> None:
    challenge = await store.issue_code(
        connection,
        Purpose.LOGIN,
        PHONE,
        KEY,
        b"code",
        ELSEWHERE,
        password_hash="x",
        ttl=300,
        cooldown=30,
        max_attempts=5,
    )
    assert challenge.issued and challenge.user_id == USER
    await connection.execute(REFUSED, KEY, LOCK, 10)
    assert await connection.fetchval(REDEEM, KEY, "login", b"wrong", 5, 20, PHONE, None) is None
    assert await connection.fetchval(REDEEM, KEY, "login", b"code", 5, 20, PHONE, None) == USER
    assert await connection.fetchval("SELECT count(*) FROM login_failures") == 0


async def test_it_is_taken_up_again_after_it_was_broken_off(database_url: str, connection: asyncpg.Connection) -> None:
    await connection.execute("DELETE FROM schema_migrations WHERE version = 7")
    await connection.execute("DROP INDEX users_unverified")
    status, said = migrate(database_url)
    assert status == 0, said
    assert dump(database_url) == SNAPSHOT.read_text()
