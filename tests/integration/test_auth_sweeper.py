"""What is forgotten: codes, failures, places, and accounts that nobody verified."""

import asyncpg
import pytest

from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import DatabaseAway
from tests.accounts import PASSWORD, Service, new_phone, settings


async def test_what_has_meant_nothing_for_a_day_is_swept_away(
    database_url: str, redis_url: str, db: asyncpg.Connection
) -> None:
    service = Service(settings(database_url, redis_url))
    async with service.running() as client:
        for days in (0, 2):
            phone = new_phone()
            await client.post("forgot-password", phone=phone)
            await client.post("reset-password", phone=phone, otp="000000", new_password="a new password")
            await client.post("send-otp", phone=phone, password=PASSWORD)
            await db.execute("UPDATE otp_challenges SET expires_at = expires_at - $1 * interval '1 day'", days)
            await db.execute("UPDATE login_failures SET failed_at = failed_at - $1 * interval '1 day'", days)
            await db.execute("UPDATE code_failures SET day = day - $1::integer", days)
            await client.post("forgot-password", phone=new_phone())
            await client.post("send-otp", phone=new_phone(), password=PASSWORD)
        swept = await service.auth.sweeper.run_once()
        assert swept == {"codes": 3, "failures": 5, "places": 0, "unverified_accounts": 0}
        assert not any((await service.auth.sweeper.run_once()).values())
        assert await db.fetchval("SELECT count(*) FROM otp_challenges") == 1


async def test_places_are_forgotten_after_ninety_days(
    database_url: str, redis_url: str, db: asyncpg.Connection
) -> None:
    service = Service(settings(database_url, redis_url))
    async with service.running() as client:
        phones = [new_phone(), new_phone()]
        for phone in phones:
            await client.join(phone)
        await db.execute(
            """
            UPDATE known_places SET seen_at = now() - interval '91 days'
            WHERE user_id = (SELECT id FROM users WHERE phone = $1)
            """,
            phones[0],
        )
        assert (await service.auth.sweeper.run_once())["places"] == 1
        assert await db.fetchval("SELECT count(*) FROM known_places") == 1


async def test_accounts_that_nobody_verified_are_removed_after_a_day(
    database_url: str, redis_url: str, db: asyncpg.Connection
) -> None:
    service = Service(settings(database_url, redis_url))
    async with service.running() as client:
        verified, forgotten, anew, waiting, young = (new_phone() for _ in range(5))
        await client.join(verified)
        for phone in (forgotten, anew, waiting):
            await client.sign_up(phone)
        await db.execute("UPDATE users SET created_at = created_at - interval '25 hours'")
        await client.sign_up(young)
        await client.sign_up(anew)
        code = await client.otp(waiting)
        assert (await service.auth.sweeper.run_once())["unverified_accounts"] == 1
        kept = {row["phone"] for row in await db.fetch("SELECT phone FROM users")}
        assert kept == {verified, anew, waiting, young}
        assert (await client.post("verify-otp", phone=waiting, otp=code)).status == 200
        assert (await service.auth.sweeper.run_once())["unverified_accounts"] == 0


async def test_accounts_go_a_batch_at_a_time(database_url: str, redis_url: str, db: asyncpg.Connection) -> None:
    await db.execute(
        """
        INSERT INTO users (id, phone, password_hash, created_at)
        SELECT gen_random_uuid(), '+1555' || 1000000 + nr, 'x', now() - interval '2 days'
        FROM generate_series(1, 1200) nr
        """
    )
    service = Service(settings(database_url, redis_url))
    async with service.running():
        removed = [(await service.auth.sweeper.run_once())["unverified_accounts"] for _ in range(4)]
    assert removed == [500, 500, 200, 0]


async def test_a_step_that_fails_does_not_keep_the_others_from_their_turn(
    database_url: str, redis_url: str, db: asyncpg.Connection
) -> None:
    service = Service(settings(database_url, redis_url))
    async with service.running() as client:
        await client.sign_up(new_phone())
        await client.post("send-otp", phone=new_phone(), password=PASSWORD)
        await db.execute("UPDATE users SET created_at = created_at - interval '2 days'")
        await db.execute("UPDATE login_failures SET failed_at = failed_at - interval '2 days'")
        await db.execute("ALTER TABLE known_places RENAME TO elsewhere")
        with pytest.raises(DatabaseAway):
            await service.auth.sweeper.run_once()
        assert await db.fetchval("SELECT count(*) FROM login_failures") == 0
        assert await db.fetchval("SELECT count(*) FROM users") == 0
        await service.database.close()
        with pytest.raises(Fault):
            await service.auth.sweeper.run_once()
        await service.database.open()
