"""Refunds are exact: once, to the day that was charged, together with what ends the prompt, whatever else goes on."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from gembackend.chatrooms import store as chatrooms
from gembackend.messages.rules import NewPrompt
from gembackend.plumbing.ids import new_id
from gembackend.prompts import cancel_store, finish_store, store
from gembackend.prompts.finish_store import Ending, Finished
from gembackend.prompts.store import Claimed
from gembackend.users import store as users
from gembackend.users.store import Account
from tests.engine import Engine, running
from tests.faults import claim, queued, somebody_waits

FORGIVEN = 5
Room = tuple[UUID, UUID]


@pytest.fixture
async def idle(database_url: str, redis_url: str) -> AsyncIterator[Engine]:
    """An engine whose actors have stopped: nothing happens but what the test does."""
    async with running(database_url, redis_url) as engine:
        for actor in reversed(engine.engine.actors):
            await actor.stop(1)
        yield engine


async def used(db: asyncpg.Connection, user: UUID, days_ago: int = 0) -> int:
    """What a user has used of a day; -1 when nothing is kept of it."""
    day = "SELECT used FROM prompt_usage WHERE user_id = $1 AND day = (now() AT TIME ZONE 'UTC')::date - $2::integer"
    found = await db.fetchval(day, user, days_ago)
    return -1 if found is None else int(found)


async def charged_yesterday(db: asyncpg.Connection, prompt_id: UUID) -> None:
    """As if the prompt had been accepted a day ago."""
    await db.execute(
        """
        WITH moved AS (
            UPDATE prompts SET charged_on = charged_on - 1 WHERE id = $1 RETURNING user_id, charged_on
        ), less AS (
            UPDATE prompt_usage u SET used = used - 1 FROM moved m
            WHERE u.user_id = m.user_id AND u.day = charged_on + 1
        )
        INSERT INTO prompt_usage AS u SELECT user_id, charged_on, 1 FROM moved
        ON CONFLICT (user_id, day) DO UPDATE SET used = u.used + 1
        """,
        prompt_id,
    )


async def delete(db: asyncpg.Connection, room: Room) -> list[UUID] | None:
    async with db.transaction():
        return await chatrooms.delete(db, *room)


def failed(claimed: Claimed, counted: str | None = None) -> Ending:
    return Ending(claimed.id, claimed.fence, "failed", error_code="x", error_message="back", counted=counted)


async def failing(engine: Engine, db: asyncpg.Connection, user: UUID, count: int) -> list[Claimed]:
    """So many prompts of a user that are worked on, each in a room of its own."""
    rooms = [await engine.room(user) for _ in range(count)]
    for room in rooms:
        await queued(engine, room, "hi")
    return await claim(db, *(room for _, room in rooms))


async def test_a_failure_gives_back_to_the_day_that_was_charged_and_not_to_today(
    idle: Engine, db: asyncpg.Connection
) -> None:
    user = await idle.user("Basic")
    old, new = await failing(idle, db, user, 2)
    await charged_yesterday(db, old.id)
    assert (await used(db, user, 1), await used(db, user)) == (1, 1)
    assert (await finish_store.finish(db, [failed(old)], FORGIVEN)).changed == {old.id}
    assert (await used(db, user, 1), await used(db, user)) == (0, 1)
    assert (await finish_store.finish(db, [failed(new)], FORGIVEN)).changed == {new.id}
    assert (await used(db, user, 1), await used(db, user)) == (0, 0)


@pytest.mark.parametrize("way", ["cancelled", "deleted with its room"])
async def test_what_never_began_is_given_back_to_the_day_that_was_charged(
    idle: Engine, db: asyncpg.Connection, way: str
) -> None:
    user = await idle.user("Basic")
    room = await idle.room(user)
    old, new = await queued(idle, room, "old"), await queued(idle, room, "new")
    await charged_yesterday(db, old)
    if way == "cancelled":
        assert (await cancel_store.cancel(db, user, old)).chatroom_id == room[1]
        assert (await used(db, user, 1), await used(db, user)) == (0, 1)
        assert (await cancel_store.cancel(db, user, new)).chatroom_id == room[1]
        assert (await cancel_store.cancel(db, user, new)).chatroom_id is None
    else:
        assert set(await delete(db, room) or ()) == {old, new}
        assert await delete(db, room) is None
    assert (await used(db, user, 1), await used(db, user)) == (0, 0)


async def test_in_one_batch_as_many_failures_are_forgiven_as_the_day_has_left_for_each_user(
    idle: Engine, db: asyncpg.Connection
) -> None:
    greedy, modest, pro = await idle.user("Basic"), await idle.user("Basic"), await idle.user("Pro")
    of_greedy = [*await failing(idle, db, greedy, 5)]
    await db.execute("UPDATE prompt_usage SET forgiven = 3")
    of_modest, of_pro = await failing(idle, db, modest, 3), await failing(idle, db, pro, 9)
    yesterdays = of_greedy[0]
    await charged_yesterday(db, yesterdays.id)
    batch = [failed(one, "stays") for one in (*of_greedy, *of_modest, *of_pro)]
    assert len((await finish_store.finish(db, batch, FORGIVEN)).changed) == 17
    assert [await used(db, user) for user in (greedy, modest, pro)] == [2, 0, 0]
    assert await used(db, greedy, 1) == 0, "another day's failures have their own bound"
    told = await db.fetch("SELECT user_id, error_message, charged_on IS NULL AS refunded FROM prompts")
    assert {(row["error_message"], row["refunded"]) for row in told} == {("back", True), ("stays", False)}
    assert sum(row["error_message"] == "stays" for row in told if row["user_id"] == greedy) == 2


async def test_failures_that_are_stored_at_the_same_time_are_not_forgiven_beyond_the_bound(
    idle: Engine, db: asyncpg.Connection
) -> None:
    user = await idle.user("Basic")
    claimed = await failing(idle, db, user, 4)
    await db.execute("UPDATE prompt_usage SET forgiven = 2")

    async def write(some: list[Claimed]) -> set[UUID]:
        async with idle.database.connection() as other:
            return (await finish_store.finish(other, [failed(one, "stays") for one in some], FORGIVEN)).changed

    async with db.transaction():
        await finish_store.finish(db, [failed(one, "stays") for one in claimed[:2]], FORGIVEN)
        second = asyncio.create_task(write(claimed[2:]))
        await somebody_waits(idle)
    assert len(await second) == 2
    assert await db.fetchval("SELECT (used, forgiven) FROM prompt_usage") == (1, FORGIVEN)
    assert await db.fetchval("SELECT count(*) FROM prompts WHERE error_message = 'stays'") == 1


async def test_a_failure_that_stays_charged_is_not_charged_again_when_it_is_cleaned_up_with_its_room(
    idle: Engine, db: asyncpg.Connection
) -> None:
    user = await idle.user("Basic")
    room = await idle.room(user)
    await queued(idle, room, "hi")
    (claimed,) = await claim(db, room[1])
    await finish_store.finish(db, [failed(claimed, "stays")], 0)
    assert await used(db, user) == 1
    assert await delete(db, room) == []
    assert await used(db, user) == 1, "it had begun"


@pytest.mark.parametrize("what", ["room", "account"])
async def test_a_prompt_that_is_accepted_just_before_its_room_goes_is_given_back_with_it(
    idle: Engine, db: asyncpg.Connection, what: str
) -> None:
    user = await idle.user("Basic")
    account, room = Account(user, "", "x"), await idle.room(user)
    kept = await queued(idle, await idle.room(user), "kept") if what == "room" else None

    async def go() -> list[UUID] | None:
        async with idle.database.transaction() as other:
            if what == "room":
                return await chatrooms.delete(other, *room)
            left = await users.delete(other, account, b"name")
            return left and left.prompt_ids

    async with db.transaction():
        if what == "account":
            room = (user, new_id())
            await db.execute(
                "INSERT INTO chatrooms_metadata (id, user_id, name) VALUES ($2, $1, 'made meanwhile')", *room
            )
        new = NewPrompt(new_id(), *room, "just in time", None, "test")
        assert [verdict.decision for verdict in await store.accept(db, [new], 5, 20, 100)] == ["accepted"]
        going = asyncio.create_task(go())
        await somebody_waits(idle)
    assert await going == [new.id]
    assert await db.fetchval("SELECT array_agg(id) FROM prompts") == ([kept] if kept else None)
    assert await used(db, user) == (1 if kept else -1)
    assert await db.fetchval("SELECT count(*) FROM phone_usage") == 0


async def test_a_prompt_that_is_claimed_just_before_its_room_goes_has_begun(
    idle: Engine, db: asyncpg.Connection
) -> None:
    user = await idle.user("Basic")
    room = await idle.room(user)
    first, second = await queued(idle, room, "first"), await queued(idle, room, "second")
    async with idle.database.transaction() as other:
        async with db.transaction():
            assert [one.id for one in await claim(db, room[1])] == [first]
            deleting = asyncio.create_task(chatrooms.delete(other, *room))
            await somebody_waits(idle)
        assert set(await deleting or ()) == {first, second}
    assert await used(db, user) == 1


async def test_a_room_that_is_being_deleted_gives_nothing_to_claim_takes_nothing_in_and_stores_nothing(
    idle: Engine, db: asyncpg.Connection
) -> None:
    user = await idle.user("Basic")
    room, other_room = await idle.room(user), await idle.room(user)
    await queued(idle, room, "runs")
    (ran,) = await claim(db, room[1])
    await queued(idle, room, "never begins")

    answer = Ending(ran.id, ran.fence, "answered", response_id="r", reply="late")
    async with db.transaction():
        assert len(await chatrooms.delete(db, *room) or ()) == 2
        async with idle.database.connection() as another:
            assert await claim(another, room[1]) == []
            assert await finish_store.finish(another, [answer], FORGIVEN) == Finished(set(), {ran.id})
        accepting = asyncio.create_task(queued(idle, room, "too late"))
        await somebody_waits(idle)
    assert await finish_store.finish(db, [answer], FORGIVEN) == Finished(set(), set())
    await accepting
    assert await db.fetchval("SELECT count(*) FROM prompts") == 0
    assert await used(db, user) == 1, "what ran is charged, and nothing else"
    await queued(idle, other_room, "goes on")
    assert await used(db, user) == 2


@pytest.mark.parametrize("first", ["cancel", "delete"])
async def test_a_prompt_that_is_cancelled_while_its_room_goes_is_given_back_once(
    idle: Engine, db: asyncpg.Connection, first: str
) -> None:
    user = await idle.user("Basic")
    room = await idle.room(user)
    await queued(idle, room, "stays out of it")
    prompt_id = await queued(idle, await idle.room(user), "kept")
    doomed = await queued(idle, room, "doomed")

    async def later(work: Any) -> Any:
        async with idle.database.transaction() as other:
            return await work(other)

    async with db.transaction():
        if first == "cancel":
            assert (await cancel_store.cancel(db, user, doomed)).chatroom_id == room[1]
            second = asyncio.create_task(later(lambda other: chatrooms.delete(other, *room)))
        else:
            assert len(await chatrooms.delete(db, *room) or ()) == 2
            second = asyncio.create_task(later(lambda other: cancel_store.cancel(other, user, doomed)))
        await somebody_waits(idle)
    await second
    assert await used(db, user) == 1
    assert await db.fetchval("SELECT array_agg(id) FROM prompts") == [prompt_id]
