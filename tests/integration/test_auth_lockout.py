"""What strangers can do to the owner of a phone: guess a little, and keep nobody out. ops/accounts.md has the model."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest

from gembackend.auth.rules import (
    DAILY_CODE_FAILURES,
    DAILY_STRANGE_REPEATS,
    DAILY_UNKNOWN_FAILURES,
    LOCK_FAILURES,
    LOCK_SECONDS,
    STRANGE_PLACES,
)
from tests.accounts import PASSWORD, Answer, Client, Service, new_phone, settings

STRANGERS = [f"203.0.113.{nr}" for nr in range(1, 11)]
OTHER = "another password"
STRANGE_GUESSES = STRANGE_PLACES + DAILY_STRANGE_REPEATS


class From(Client):
    """The same server, seen from an address."""

    def __init__(self, base: str, address: str) -> None:
        super().__init__(base)
        self.headers["X-Forwarded-For"] = address

    async def reset(self, phone: str, code: str, password: str = OTHER) -> Answer:
        return await self.post("reset-password", phone=phone, otp=code, new_password=password)


class Scene:
    """An owner at home and in a hotel, ten strangers, and a clock that is moved by moving what was into the past."""

    def __init__(self, service: Service, base: str, db: asyncpg.Connection) -> None:
        self.service, self.base, self.db = service, base, db
        self.phone = new_phone()
        self.home, self.hotel = From(base, "198.51.100.7"), From(base, "192.0.2.99")
        self.strangers = [From(base, address) for address in STRANGERS]

    async def later(self, seconds: int) -> None:
        """Let time go by; what was asked until then counts for no rate limit any more."""
        passed = timedelta(seconds=seconds)
        await self.db.execute(
            "UPDATE otp_challenges SET created_at = created_at - $1::interval, expires_at = expires_at - $1", passed
        )
        await self.db.execute("UPDATE login_failures SET failed_at = failed_at - $1::interval", passed)
        await self.service.redis.flushdb()

    async def everybody(self, endpoint: str, times: int = 1, **body: str) -> list[Answer]:
        """The answers to what every stranger sends so many times, all at once."""
        return await asyncio.gather(
            *(one.post(endpoint, phone=self.phone, **body) for one in self.strangers for _ in range(times))
        )

    async def sent(self) -> str:
        """The code that reaches the phone when the strangers ask for a reset."""
        (code,) = [answer.body["otp"] for answer in await self.everybody("forgot-password") if answer.status == 200]
        return str(code)

    async def guesses(self) -> int:
        """How many wrong codes were looked at today."""
        counted = "SELECT coalesce(sum(known + proven + cardinality(places) + repeats), 0) FROM code_failures"
        return int(await self.db.fetchval(counted))


@asynccontextmanager
async def staged(database_url: str, redis_url: str, db: asyncpg.Connection) -> AsyncIterator[Scene]:
    """A scene with the limits that are the default."""
    chosen = settings(
        database_url, redis_url, TRUSTED_PROXIES="127.0.0.0/8", OTP_RESEND_SECONDS="30", AUTH_RATE_LIMIT="30/300"
    )
    service = Service(chosen)
    async with service.running() as client, AsyncExitStack() as clients:
        scene = Scene(service, client.base, db)
        for one in (scene.home, scene.hotel, *scene.strangers):
            await clients.enter_async_context(one)
        yield scene


@pytest.fixture
async def scene(database_url: str, redis_url: str, db: asyncpg.Connection) -> AsyncIterator[Scene]:
    async with staged(database_url, redis_url, db) as scene:
        yield scene


def wrong(code: str, nth: int = 1) -> str:
    """A code that is not this one."""
    return f"{(int(code) + nth) % 1_000_000:06}"


async def attack(scene: Scene) -> None:
    """Five minutes of ten strangers who know the phone."""
    await scene.everybody("forgot-password")
    await scene.everybody("send-otp", 4, password="not this one")
    await scene.everybody("verify-otp", 3, otp="123456")
    await scene.everybody("reset-password", 3, otp="123456", new_password="the stranger's")
    await scene.everybody("forgot-password")


async def test_ten_strangers_with_an_hour_keep_nobody_out_and_get_no_more_guesses(scene: Scene) -> None:
    home, phone, password = scene.home, scene.phone, PASSWORD
    await home.join(phone)

    async def owner(first: str, second: str) -> None:
        """Forget the password, log in with the new one, and change that."""
        code = (await home.post("forgot-password", phone=phone)).body["otp"]
        assert (await home.reset(phone, code, first)).status == 200
        token = await home.log_in(phone, first)
        changed = await home.post("change-password", token, old_password=first, new_password=second)
        assert changed.status == 200, changed.body

    for minute in range(0, 60, 5):
        password = f"password of minute {minute}"
        await asyncio.gather(attack(scene), owner("a forgotten password", password))
        assert await home.log_in(phone, password)
        await scene.later(300)
    assert await scene.guesses() <= STRANGE_GUESSES < DAILY_CODE_FAILURES

    code = await scene.sent()
    tried = await asyncio.gather(*(one.reset(phone, code) for one in scene.strangers))
    assert {answer.code for answer in tried} == {"invalid_otp"}, "what strangers send is not looked at any more"
    assert (await scene.hotel.post("forgot-password", phone=phone)).code == "otp_cooldown", "a code is on the phone"
    assert (await scene.hotel.reset(phone, code)).status == 200
    await attack(scene)
    assert await scene.hotel.log_in(phone, OTHER)


async def test_without_redis_nobody_is_kept_out_either(
    database_url: str, unused_tcp_port: int, db: asyncpg.Connection
) -> None:
    async with staged(database_url, f"redis://127.0.0.1:{unused_tcp_port}", db) as scene:
        await scene.home.join(scene.phone)
        await attack(scene)
        junk = await scene.everybody("verify-otp", 10, otp="123456")
        assert "rate_limited" in {answer.code for answer in junk}
        assert await scene.guesses() <= STRANGE_GUESSES
        code = (await scene.home.post("forgot-password", phone=scene.phone)).body["otp"]
        assert (await scene.home.reset(scene.phone, code)).status == 200
        assert await scene.hotel.log_in(scene.phone, OTHER)


async def test_of_parallel_guesses_from_everywhere_so_many_are_looked_at_and_the_owners_code_lives(
    scene: Scene,
) -> None:
    await scene.home.sign_up(scene.phone)
    code = await scene.home.otp(scene.phone)

    async def guess(one: From, nth: int) -> Answer:
        return await one.post("verify-otp", phone=scene.phone, otp=wrong(code, nth))

    await asyncio.gather(*(guess(scene.strangers[0], nth) for nth in range(1, 31)))
    assert await scene.guesses() == 1 + DAILY_STRANGE_REPEATS
    await asyncio.gather(*(guess(one, nth) for one in scene.strangers[1:] for nth in range(1, 16)))
    assert await scene.guesses() == len(STRANGERS) + DAILY_STRANGE_REPEATS
    await scene.later(0)
    right = await asyncio.gather(*(one.post("verify-otp", phone=scene.phone, otp=code) for one in scene.strangers))
    assert {answer.code for answer in right} == {"invalid_otp"}
    for nth in range(1, DAILY_UNKNOWN_FAILURES - STRANGE_GUESSES + 1):
        assert (await guess(scene.home, nth)).code == "invalid_otp"
    assert (await scene.home.post("verify-otp", phone=scene.phone, otp=code)).status == 200


async def test_twenty_wrong_codes_a_day_is_the_most_from_anywhere(scene: Scene) -> None:
    await scene.home.join(scene.phone)
    many = [From(scene.base, f"203.0.113.{nr}") for nr in range(1, 41)]
    code = await scene.sent()
    async with AsyncExitStack() as clients:
        for one in many:
            await clients.enter_async_context(one)
        await asyncio.gather(*(one.reset(scene.phone, wrong(code, nth)) for one in many for nth in (1, 2, 3)))
    assert STRANGE_PLACES <= await scene.guesses() <= STRANGE_GUESSES
    for _ in range(3):
        await scene.later(30)
        login = await scene.home.otp(scene.phone)
        for nth in range(1, 6):
            await scene.home.post("verify-otp", phone=scene.phone, otp=wrong(login, nth))
    assert await scene.guesses() == DAILY_CODE_FAILURES
    assert (await scene.home.post("verify-otp", phone=scene.phone, otp=login)).code == "invalid_otp"


async def test_a_lock_that_strangers_bring_about_is_theirs(scene: Scene) -> None:
    phone, token = scene.phone, await scene.home.join(scene.phone)
    await scene.everybody("send-otp", 20, password="not this one")
    row = await scene.db.fetchrow("SELECT failures, cardinality(places) AS places, repeats FROM login_failures")
    assert row is not None and tuple(row) == (0, len(STRANGERS), LOCK_FAILURES - 1)
    right = await scene.everybody("send-otp", password=PASSWORD)
    assert {answer.code for answer in right} == {"invalid_credentials"}
    changed = await scene.strangers[0].post("change-password", token, old_password=PASSWORD, new_password=OTHER)
    assert changed.status == 200, "a session is not locked with the login"
    assert await scene.home.log_in(phone, OTHER)
    assert await scene.hotel.log_in(phone, OTHER)
    await scene.later(LOCK_SECONDS)
    assert (await scene.strangers[0].post("send-otp", phone=phone, password=OTHER)).status == 200


async def test_a_session_that_guesses_the_password_locks_itself_and_no_other(scene: Scene) -> None:
    phone, thief = scene.phone, await scene.home.join(scene.phone)
    await scene.later(30)
    mine = await scene.home.log_in(phone)
    guesses = [
        scene.strangers[0].post("change-password", thief, old_password=f"guess number {nr}", new_password=OTHER)
        for nr in range(LOCK_FAILURES)
    ]
    assert {answer.code for answer in await asyncio.gather(*guesses)} == {"invalid_credentials"}
    body = {"old_password": PASSWORD, "new_password": OTHER}
    assert (await scene.strangers[0].post("change-password", thief, **body)).code == "invalid_credentials"
    farewell = {"password": PASSWORD}
    assert (await scene.strangers[0].call("DELETE", "/v1/user/me", farewell, token=thief)).code == "invalid_credentials"
    assert (await scene.home.post("change-password", mine, **body)).status == 200
    assert await scene.home.log_in(phone, OTHER)


async def test_asking_for_codes_again_and_again_kills_none_that_somebody_holds(scene: Scene) -> None:
    await scene.home.join(scene.phone)
    waits, stranger = [], scene.strangers[0]
    mine = (await scene.home.post("forgot-password", phone=scene.phone)).body["otp"]
    for _ in range(6):
        assert (await stranger.post("forgot-password", phone=scene.phone)).status == 200
        refused = await scene.strangers[1].post("forgot-password", phone=scene.phone)
        assert refused.code == "otp_cooldown"
        waits.append(int(refused.headers["Retry-After"]))
        await scene.later(waits[-1])
    assert waits == [30, 60, 120, 240, 300, 300], "each one longer, until it is the life of a code"
    await scene.db.execute(
        "UPDATE otp_challenges SET expires_at = now() + interval '1 minute' WHERE purpose <> 'reset'"
    )
    assert (await scene.home.reset(scene.phone, mine)).status == 200


async def test_a_code_works_wherever_its_holder_is(scene: Scene) -> None:
    await scene.home.join(scene.phone)
    assert (await scene.home.reset(scene.phone, await scene.sent())).status == 200, "strangers asked, the owner has it"
    mine = (await scene.home.post("forgot-password", phone=scene.phone)).body["otp"]
    assert (await scene.hotel.reset(scene.phone, mine)).status == 200
    login = await scene.hotel.otp(scene.phone, OTHER)
    assert (await scene.home.post("verify-otp", phone=scene.phone, otp=login)).status == 200


async def test_a_reset_forgets_every_place_but_its_own(scene: Scene) -> None:
    await scene.home.join(scene.phone)
    code = (await scene.hotel.post("forgot-password", phone=scene.phone)).body["otp"]
    assert await scene.db.fetchval("SELECT count(*) FROM known_places") == 1
    assert (await scene.hotel.reset(scene.phone, code)).status == 200
    (place,) = await scene.db.fetch("SELECT place FROM known_places")
    assert place["place"] == scene.service.auth.codes.place("192.0.2.99")


@pytest.mark.parametrize("from_home", [True, False])
async def test_strangers_and_neighbours_cannot_tell_whether_a_phone_has_an_account(
    scene: Scene, *, from_home: bool
) -> None:
    await scene.home.join(scene.phone)
    one = scene.home if from_home else scene.strangers[0]

    async def probe(phone: str) -> list[tuple[int, list[str], list[str], str | None]]:
        answers = []
        for pause in (0, 5, 25, 30, 30, 30, 300):
            await scene.later(pause)
            answers += [await one.post("forgot-password", phone=phone)]
            answers += [await one.reset(phone, "123456") for _ in range(6)]
            answers += [await one.post("verify-otp", phone=phone, otp="123456")]
            answers += [await one.post("send-otp", phone=phone, password="not this one") for _ in range(4)]
        return [(a.status, sorted(a.headers), sorted(a.body), a.headers.get("Retry-After")) for a in answers]

    known, unknown = await probe(scene.phone), await probe(new_phone())
    assert Counter(status for status, *_ in known) == {200: 4, 401: 77, 429: 3}
    assert known == unknown
