"""Quotas that cannot be had twice: not by another account, not by deleting rooms, not by prompts that fail."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from gembackend.embedded.gemini import Behaviour
from gembackend.plumbing.postgres import Database
from gembackend.prompts import outcome
from gembackend.quota import store as quota
from gembackend.quota.phones import Phones
from gembackend.quota.sweeper import QuotaSweeper
from gembackend.users import store as users
from gembackend.users.models import User
from gembackend.users.store import Account, Left
from tests.accounts import PASSWORD, SECRET, Answer, new_phone
from tests.processes import until
from tests.whole import Whole, whole_service

LIMIT = 5


@pytest.fixture
async def whole(database_url: str, redis_url: str) -> AsyncIterator[Whole]:
    async with whole_service(database_url, redis_url) as started:
        yield started


async def send(whole: Whole, room: str, text: str = "hi") -> Answer:
    return await whole.client.call("POST", f"/v1/chatroom/{room}/message", {"prompt": text})


async def used_today(whole: Whole) -> int:
    return int((await whole.client.call("GET", "/v1/user/me")).body["usage"]["prompts_today"])


async def leave(whole: Whole) -> None:
    assert (await whole.client.call("DELETE", "/v1/user/me", {"password": PASSWORD})).status == 204


async def ask_until_refused(whole: Whole, room: str, most: int = 30) -> list[Any]:
    """Send prompts one after another and wait for each, until the daily limit is reached; the finished prompts."""
    finished: list[Any] = []
    while len(finished) < most:
        answer = await whole.client.call(
            "POST", f"/v1/chatroom/{room}/message", {"prompt": "hm"}, headers={"Prefer": "wait=20"}
        )
        if answer.status == 429:
            assert answer.code == "daily_limit_reached"
            return finished
        assert answer.status == 200, answer.body
        finished.append(answer.body)
    raise AssertionError(f"{most} prompts have not been too many")


async def test_a_new_account_of_a_phone_starts_with_what_was_used_today(whole: Whole, db: asyncpg.Connection) -> None:
    phone = new_phone()
    for account in range(3):
        whole.client.token = await whole.client.join(phone)
        assert await used_today(whole) == (LIMIT if account else 0)
        assert len(await ask_until_refused(whole, await whole.room())) == (0 if account else LIMIT)
        await leave(whole)
    assert whole.gemini.arrived == LIMIT
    rows = await db.fetch("SELECT p::text AS kept FROM phone_usage p")
    assert len(rows) == 1 and phone.removeprefix("+") not in rows[0]["kept"]
    await whole.client.sign_up(phone)
    await whole.client.sign_up(phone, "another password")
    whole.client.token = await whole.client.log_in(phone, "another password")
    assert await used_today(whole) == LIMIT, "also of an account that was made anew before it was verified"
    whole.client.token = await whole.client.join()
    assert await used_today(whole) == 0, "another phone is another person"


async def test_what_an_account_has_been_forgiven_goes_with_the_phone_too(whole: Whole) -> None:
    whole.gemini.default = Behaviour(finish_reason="SAFETY")
    phone = new_phone()
    for _ in range(3):
        whole.client.token = await whole.client.join(phone)
        await ask_until_refused(whole, await whole.room())
        await leave(whole)
    assert whole.gemini.arrived == 2 * LIMIT


async def test_however_accounts_come_and_go_while_prompts_are_sent_no_more_than_a_days_prompts_begin(
    whole: Whole,
) -> None:
    phone = new_phone()
    for _ in range(3 * LIMIT):
        whole.client.token = await whole.client.join(phone)
        rooms = [await whole.room() for _ in range(3)]
        *answers, _ = await asyncio.gather(*(send(whole, rooms[n % 3]) for n in range(4)), leave(whole))
        assert {answer.status for answer in answers} <= {202, 401, 404, 429}
        whole.client.token = await whole.client.join(phone)
        if (await send(whole, await whole.room())).status == 429:
            break
        await leave(whole)
    else:
        raise AssertionError("the day's prompts have never been used up")
    assert await used_today(whole) == LIMIT
    assert whole.gemini.arrived <= LIMIT


async def test_a_sign_up_that_comes_while_the_account_is_being_deleted_waits_and_knows_what_was_used(
    whole: Whole, db: asyncpg.Connection, database_url: str
) -> None:
    phone, phones = new_phone(), Phones(SECRET)
    whole.client.token = await whole.client.join(phone)
    await whole.ask(await whole.room(), "hi")
    row = await db.fetchrow("SELECT id AS user_id, phone, password_hash FROM users WHERE phone = $1", phone)
    assert row is not None
    async with db.transaction():
        assert await users.delete(db, Account(**row), phones.name(phone)) is not None
        signing_up = asyncio.create_task(whole.client.sign_up(phone))
        await somebody_waits(database_url)
    await signing_up
    whole.client.token = await whole.client.log_in(phone)
    assert await used_today(whole) == 1


async def test_a_room_that_is_made_while_the_account_is_being_deleted_is_refused_as_without_a_session(
    whole: Whole, db: asyncpg.Connection, database_url: str
) -> None:
    row = await db.fetchrow("SELECT id AS user_id, phone, password_hash FROM users")
    assert row is not None
    async with db.transaction():
        assert await users.delete(db, Account(**row), b"name") is not None
        making = asyncio.create_task(whole.client.call("POST", "/v1/chatroom", {"name": "too late"}))
        await somebody_waits(database_url)
    assert ((await making).status, (await making).code) == (401, "unauthorized")


async def test_what_a_phone_has_used_is_found_under_an_earlier_key_and_forgotten_when_its_day_is_over(
    db: asyncpg.Connection, database_url: str
) -> None:
    old, new = Phones("old key"), Phones("new key", ["old key"])
    first, second, third = new_phone(), new_phone(), new_phone()
    account = await sign_up(db, old, first)
    await db.execute("INSERT INTO prompt_usage VALUES ($1, $2, 3)", account.id, await today(db))
    assert await delete(db, old, account) == Left([], [])
    assert await usage_of(db, await sign_up(db, new, first)) == 3
    for phone, days in ((second, 1), (third, 0)):
        await db.execute(
            "INSERT INTO phone_usage VALUES ($1, $2::date - $3::integer, 4, 0)", new.name(phone), await today(db), days
        )
    late = await sign_up(db, new, second)
    assert await usage_of(db, late) == 0, "that was yesterday"
    assert await db.fetchval("SELECT count(*) FROM prompt_usage WHERE user_id = $1", late.id) == 0
    database = Database(database_url, 2)
    await database.open()
    swept = await QuotaSweeper(database).run_once()
    await database.close()
    assert swept == 1
    assert await usage_of(db, await sign_up(db, new, third)) == 4, "today is not over"


async def test_an_account_that_goes_gives_back_what_never_began_and_keeps_what_did(
    whole: Whole, db: asyncpg.Connection
) -> None:
    phone, gate = new_phone(), asyncio.Event()
    whole.client.token = await whole.client.join(phone)
    whole.gemini.default = Behaviour(hold=gate)
    room = await whole.room()
    for text in ("runs", "waits", "waits too"):
        assert (await send(whole, room, text)).status == 202
    await whole.gemini.wait_for_calls(1)
    await leave(whole)
    await whole.gemini.wait_until(lambda: whole.gemini.calls[0].cancelled)
    assert await db.fetchval("SELECT used FROM phone_usage") == 1
    whole.client.token = await whole.client.join(phone)
    assert await used_today(whole) == 1
    gate.set()


async def test_failures_that_prompts_bring_about_are_given_back_up_to_a_bound_and_say_so(whole: Whole) -> None:
    whole.gemini.default = Behaviour(block_reason="PROHIBITED_CONTENT")
    prompts = await ask_until_refused(whole, await whole.room())
    told = [prompt["error"]["message"] for prompt in prompts]
    assert told == [outcome.MESSAGES["content_blocked"]] * LIMIT + [outcome.COUNTED["content_blocked"]] * LIMIT
    assert whole.gemini.arrived == 2 * LIMIT
    assert await used_today(whole) == LIMIT
    await whole.make_pro()
    prompt = await whole.ask(await whole.room(), "hm")
    assert prompt["error"]["message"] == outcome.MESSAGES["content_blocked"], "who has no limit is charged for nothing"
    assert await used_today(whole) == LIMIT


async def test_what_is_not_the_prompts_fault_is_given_back_however_often(database_url: str, redis_url: str) -> None:
    async with whole_service(database_url, redis_url, PROMPT_MAX_ATTEMPTS="1") as whole:
        whole.gemini.default = Behaviour(status="RESOURCE_EXHAUSTED")
        room = await whole.room()
        for _ in range(3 * LIMIT):
            assert (await whole.ask(room, "hm"))["error"]["message"] == outcome.MESSAGES["gemini_rate_limited"]
        assert await used_today(whole) == 0
        whole.gemini.default = Behaviour()
        assert len(await ask_until_refused(whole, room)) == LIMIT


async def somebody_waits(database_url: str) -> None:
    """Wait until a statement waits for a lock."""
    onlooker = await asyncpg.connect(database_url)

    async def waits() -> bool:
        return bool(await onlooker.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

    await until(waits, "a statement that waits")
    await onlooker.close()


async def today(db: asyncpg.Connection) -> Any:
    return await db.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")


async def sign_up(db: asyncpg.Connection, phones: Phones, phone: str) -> User:
    async with db.transaction():
        user = await users.sign_up(
            db, await db.fetchval("SELECT gen_random_uuid()"), phone, "x", None, phones.names(phone)
        )
    assert user is not None
    return user


async def delete(db: asyncpg.Connection, phones: Phones, user: User) -> Left | None:
    async with db.transaction():
        return await users.delete(db, Account(user.id, user.phone, "x"), phones.name(user.phone))


async def usage_of(db: asyncpg.Connection, user: User) -> int:
    return (await quota.usage(db, user.id)).prompts_today
