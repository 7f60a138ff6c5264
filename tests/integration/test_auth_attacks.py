"""Guessing passwords and codes, one at a time and fifty at once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from time import perf_counter

import asyncpg
import pytest

from gembackend.auth import passwords
from gembackend.auth.passwords import Cost
from gembackend.auth.rules import DAILY_CODE_FAILURES, LOCK_FAILURES
from tests.accounts import PASSWORD, Answer, Client, Service, new_phone, settings


@pytest.fixture
async def client(database_url: str, redis_url: str) -> AsyncIterator[Client]:
    async with Service(settings(database_url, redis_url)).running() as client:
        yield client


def wrong(code: str, nth: int = 1) -> str:
    """A code that is not this one."""
    return f"{(int(code) + nth) % 1_000_000:06}"


async def fifty(client: Client, endpoint: str, **body: str) -> list[Answer]:
    """The answers to the same request sent fifty times at once."""
    return await asyncio.gather(*(client.post(endpoint, **body) for _ in range(50)))


async def test_fifty_parallel_right_codes_give_one_token(client: Client) -> None:
    phone = new_phone()
    await client.sign_up(phone)
    answers = await fifty(client, "verify-otp", phone=phone, otp=await client.otp(phone))
    assert Counter(answer.status for answer in answers) == {200: 1, 401: 49}


async def test_fifty_parallel_reset_codes_set_one_password(client: Client) -> None:
    phone = new_phone()
    await client.join(phone)
    code = (await client.post("forgot-password", phone=phone)).body["otp"]
    chosen = [f"password number {nr}" for nr in range(50)]
    answers = await asyncio.gather(
        *(client.post("reset-password", phone=phone, otp=code, new_password=password) for password in chosen)
    )
    winner = [password for answer, password in zip(answers, chosen, strict=True) if answer.status == 200]
    assert len(winner) == 1
    assert await client.log_in(phone, winner[0])


async def test_after_fifty_parallel_wrong_codes_the_right_one_is_refused(
    client: Client, db: asyncpg.Connection
) -> None:
    phone = new_phone()
    await client.sign_up(phone)
    code = await client.otp(phone)
    answers = await asyncio.gather(*(client.post("verify-otp", phone=phone, otp=wrong(code, n)) for n in range(1, 51)))
    assert {answer.code for answer in answers} == {"invalid_otp"}
    assert (await client.post("verify-otp", phone=phone, otp=code)).code == "invalid_otp"
    assert await db.fetchval("SELECT attempts FROM otp_challenges") == 5


async def test_a_code_serves_its_own_purpose_and_phone_only(client: Client) -> None:
    mine, theirs = new_phone(), new_phone()
    await client.join(mine)
    await client.join(theirs)
    login = await client.otp(mine)
    reset = (await client.post("forgot-password", phone=theirs)).body["otp"]
    await client.post("forgot-password", phone=mine)
    await client.otp(theirs)
    attempts = [
        await client.post("reset-password", phone=mine, otp=login, new_password="a new password"),
        await client.post("verify-otp", phone=theirs, otp=login),
        await client.post("verify-otp", phone=theirs, otp=reset),
        await client.post("reset-password", phone=mine, otp=reset, new_password="a new password"),
    ]
    assert {answer.code for answer in attempts} == {"invalid_otp"}
    assert (await client.post("verify-otp", phone=mine, otp=login)).status == 200


async def test_codes_end_by_time_by_use_and_by_a_newer_one(client: Client, db: asyncpg.Connection) -> None:
    phone = new_phone()
    await client.sign_up(phone)
    first = await client.otp(phone)
    second = await client.otp(phone)
    assert (await client.post("verify-otp", phone=phone, otp=first)).status == (401 if first != second else 200)
    assert (await client.post("verify-otp", phone=phone, otp=second)).status == 200
    assert (await client.post("verify-otp", phone=phone, otp=second)).status == 401
    third = await client.otp(phone)
    await db.execute("UPDATE otp_challenges SET expires_at = now()")
    assert (await client.post("verify-otp", phone=phone, otp=third)).status == 401


async def test_twenty_wrong_codes_a_day_of_both_purposes_together_are_the_end_of_codes_from_there(
    client: Client, db: asyncpg.Connection
) -> None:
    phone = new_phone()
    await client.join(phone)

    async def reset(tried: str) -> Answer:
        return await client.post("reset-password", phone=phone, otp=tried, new_password=PASSWORD + "!")

    for _ in range(DAILY_CODE_FAILURES // 10):
        code = await client.otp(phone)
        await asyncio.gather(*(client.post("verify-otp", phone=phone, otp=wrong(code, n)) for n in range(1, 6)))
        code = (await client.post("forgot-password", phone=phone)).body["otp"]
        await asyncio.gather(*(reset(wrong(code, n)) for n in range(1, 6)))
    assert (await client.post("verify-otp", phone=phone, otp=await client.otp(phone))).code == "invalid_otp"
    assert (await reset((await client.post("forgot-password", phone=phone)).body["otp"])).code == "invalid_otp"
    await db.execute("UPDATE code_failures SET day = day - 1")
    assert (await reset((await client.post("forgot-password", phone=phone)).body["otp"])).status == 200
    assert await client.log_in(phone, PASSWORD + "!")


async def test_ten_wrong_passwords_lock_the_login_but_not_the_reset(client: Client, db: asyncpg.Connection) -> None:
    phone = new_phone()
    await client.join(phone)
    answers = await fifty(client, "send-otp", phone=phone, password="not this one")
    assert {answer.code for answer in answers} == {"invalid_credentials"}
    assert await db.fetchval("SELECT failures FROM login_failures") == LOCK_FAILURES
    assert (await client.post("send-otp", phone=phone, password=PASSWORD)).code == "invalid_credentials"
    code = (await client.post("forgot-password", phone=phone)).body["otp"]
    assert (await client.post("reset-password", phone=phone, otp=code, new_password="a new password")).status == 200
    assert await client.log_in(phone, "a new password")


async def test_a_lock_ends_after_fifteen_minutes_and_tries_do_not_make_it_longer(
    client: Client, db: asyncpg.Connection
) -> None:
    phone = new_phone()
    await client.join(phone)
    await fifty(client, "send-otp", phone=phone, password="not this one")
    locked = await db.fetchval("SELECT failed_at FROM login_failures")
    await client.post("send-otp", phone=phone, password="not this one")
    assert await db.fetchval("SELECT failed_at FROM login_failures") == locked
    await db.execute("UPDATE login_failures SET failed_at = failed_at - interval '15 minutes'")
    assert await client.log_in(phone)
    assert await db.fetchval("SELECT failures FROM login_failures") == 0


async def test_passwords_given_by_someone_logged_in_count_as_well(client: Client) -> None:
    phone = new_phone()
    token = await client.join(phone)
    for _ in range(LOCK_FAILURES):
        guess = await client.post("change-password", token, old_password="not this one", new_password="a new password")
        assert guess.code == "invalid_credentials"
    refused = await client.post("change-password", token, old_password=PASSWORD, new_password="a new password")
    assert refused.code == "invalid_credentials"
    assert (await client.call("DELETE", "/v1/user/me", {"password": PASSWORD}, token=token)).status == 401


async def test_fifty_parallel_requests_for_a_code_send_one(database_url: str, redis_url: str) -> None:
    chosen = settings(database_url, redis_url, OTP_RESEND_SECONDS="30")
    async with Service(chosen).running() as client:
        phone = new_phone()
        await client.sign_up(phone)
        for endpoint, body in (("send-otp", {"password": PASSWORD}), ("forgot-password", {})):
            answers = await fifty(client, endpoint, phone=phone, **body)
            refused = [answer for answer in answers if answer.status != 200]
            assert len(refused) == 49
            assert {answer.code for answer in refused} == {"otp_cooldown"}
            assert all(25 <= int(answer.headers["Retry-After"]) <= 30 for answer in refused)


async def test_the_cooldown_ends_with_the_code(database_url: str, redis_url: str) -> None:
    chosen = settings(database_url, redis_url, OTP_RESEND_SECONDS="30")
    async with Service(chosen).running() as client:
        phone = new_phone()
        await client.sign_up(phone)
        code = await client.otp(phone)
        for nth in range(1, 6):
            await client.post("verify-otp", phone=phone, otp=wrong(code, nth))
        assert await client.log_in(phone)
        assert await client.log_in(phone)
        await client.otp(phone)
        assert (await client.post("send-otp", phone=phone, password=PASSWORD)).code == "otp_cooldown"


async def test_a_phone_that_nobody_has_looks_like_any_other(database_url: str, redis_url: str) -> None:
    chosen = settings(database_url, redis_url, OTP_RESEND_SECONDS="30")

    async def probe(client: Client, phone: str) -> list[tuple[int, list[str], list[str], str | None]]:
        forgotten = await client.post("forgot-password", phone=phone)
        code = forgotten.body["otp"]
        reset = {"phone": phone, "new_password": "a new password"}
        answers = [
            forgotten,
            await client.post("forgot-password", phone=phone),
            await client.post("reset-password", otp=wrong(code), **reset),
            await client.post("verify-otp", phone=phone, otp=code),
            await client.post("send-otp", phone=phone, password="not this one"),
            *[await client.post("reset-password", otp=wrong(code, nth), **reset) for nth in range(2, 6)],
            await client.post("reset-password", otp=code, **reset),
            await client.post("forgot-password", phone=phone),
            await client.post("forgot-password", phone=phone),
        ]
        return [(a.status, sorted(a.headers), sorted(a.body), a.body.get("detail")) for a in answers]

    async with Service(chosen).running() as client:
        known = new_phone()
        await client.join(known)
        assert await probe(client, known) == await probe(client, new_phone())


async def test_signing_up_while_verifying_never_changes_a_verified_user(client: Client) -> None:
    for _ in range(10):
        phone = new_phone()
        await client.sign_up(phone)
        code = await client.otp(phone)
        verified, *_ = await asyncio.gather(
            client.post("verify-otp", phone=phone, otp=code),
            *(client.post("signup", phone=phone, password=f"the attacker's {nr}") for nr in range(4)),
        )
        login = await client.post("send-otp", phone=phone, password=PASSWORD)
        assert (verified.status == 200) == (login.status == 200)


async def test_a_raised_cost_rehashes_at_the_next_login(
    database_url: str, redis_url: str, db: asyncpg.Connection
) -> None:
    chosen, phone = settings(database_url, redis_url), new_phone()
    async with Service(chosen, Cost(memory_kib=64, passes=1)).running() as client:
        token = await client.join(phone)
    async with Service(chosen, Cost(memory_kib=128, passes=1)).running() as client:
        await client.post("send-otp", phone=phone, password="not this one")
        assert "m=64," in await db.fetchval("SELECT password_hash FROM users")
        await client.log_in(phone)
        assert "m=128," in await db.fetchval("SELECT password_hash FROM users")
        assert await client.alive(token)
    async with Service(chosen, Cost(memory_kib=64, passes=1)).running() as client:
        await client.log_in(phone)
        assert "m=128," in await db.fetchval("SELECT password_hash FROM users")


async def test_a_password_that_is_changed_during_a_rehash_stays_changed(
    database_url: str, redis_url: str, db: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, phone = settings(database_url, redis_url), new_phone()
    async with Service(chosen, Cost(memory_kib=64, passes=1)).running() as client:
        token = await client.join(phone)
        service = Service(chosen, Cost(memory_kib=128, passes=1))
        async with service.running() as rehashing:
            hashed, changes = service.auth.passwords.hash, []

            async def hash_late(password: str) -> str:
                dearer = await hashed(password)
                body = {"old_password": PASSWORD, "new_password": "a new password"}
                changes.append(await client.post("change-password", token, **body))
                return dearer

            monkeypatch.setattr(service.auth.passwords, "hash", hash_late)
            await rehashing.post("send-otp", phone=phone, password=PASSWORD)
        assert [answer.status for answer in changes] == [200]
        assert "m=64," in await db.fetchval("SELECT password_hash FROM users")
        assert (await client.post("send-otp", phone=phone, password=PASSWORD)).code == "invalid_credentials"
        assert await client.log_in(phone, "a new password")


async def under_two_hundred_logins(client: Client, phone: str) -> tuple[list[Answer], float]:
    """The answers to that many logins at once, and how long others wait meanwhile (the 90th percentile) as a multiple
    of what one hash takes at the same time."""
    logins = asyncio.gather(*(client.post("send-otp", phone=phone, password=PASSWORD) for _ in range(200)))
    hasher = passwords.Passwords(Cost())

    async def seconds(work: Callable[[], Awaitable[object]], percentile: int) -> float:
        taken = []
        while not logins.done():
            began = perf_counter()
            await work()
            taken.append(perf_counter() - began)
        return sorted(taken)[len(taken) * percentile // 100]

    waiting, hashing = await asyncio.gather(
        seconds(lambda: client.call("GET", "/livez"), 90), seconds(lambda: hasher.hash(PASSWORD), 50)
    )
    hasher.stop()
    return await logins, waiting / hashing


async def test_two_hundred_parallel_logins_do_not_hold_up_others(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "PATIENCE_SECONDS", 0.3)
    async with Service(settings(database_url, redis_url), Cost()).running() as client:
        phone, waits = new_phone(), [1.0]
        await client.sign_up(phone)
        while waits[-1] >= 1.0 and len(waits) < 6:  # a machine that is busy with something else may spoil a round
            answers, wait = await under_two_hundred_logins(client, phone)
            waits.append(wait)
            refused = [answer for answer in answers if answer.status != 200]
            assert 0 < len(refused) < 200
            assert "busy" in {answer.code for answer in refused}
            assert {answer.status for answer in refused} == {503}
            assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert waits[-1] < 1.0, waits
