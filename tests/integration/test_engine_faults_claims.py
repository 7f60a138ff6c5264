"""Who may work on a prompt: heads, fences, attempts, suspects."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from gembackend.embedded.gemini import Behaviour
from gembackend.plumbing import metrics
from gembackend.prompts import finish_store, store
from gembackend.prompts.finish_store import Ending
from gembackend.prompts.stream import STREAM
from tests.engine import Engine, running
from tests.faults import at_rest, claim, leases_run_out, queued, row_locked
from tests.processes import until


@pytest.fixture
async def engine(database_url: str, redis_url: str) -> AsyncIterator[Engine]:
    async with running(database_url, redis_url) as started:
        yield started


async def test_a_write_with_a_stale_fence_changes_no_row(engine: Engine, db: asyncpg.Connection) -> None:
    room = await engine.room()
    prompt_id = await queued(engine, room, "hi")
    (stale,) = await claim(db, room[1])
    await leases_run_out(db)
    (fresh,) = await claim(db, room[1])
    assert fresh.taken_over and fresh.fence == stale.fence + 1
    before = await db.fetch("SELECT * FROM prompts")
    for status in ("answered", "failed", "queued"):
        ending = Ending(prompt_id, stale.fence, status, response_id="r", reply="late")
        if status == "failed":
            ending = replace(ending, error_code="late", error_message="late")
        assert (await finish_store.finish(db, [ending], 5)).changed == set()
    assert await store.extend_leases(db, [(prompt_id, stale.fence)], 99) == set()
    assert await db.fetch("SELECT * FROM prompts") == before
    assert await db.fetchval("SELECT count(*) FROM chatrooms_messages") == 0
    assert await db.fetchval("SELECT used FROM prompt_usage") == 1


async def test_a_head_that_somebody_holds_is_waited_for_and_not_skipped(engine: Engine, db: asyncpg.Connection) -> None:
    room = await engine.room()
    head = await queued(engine, room, "first")
    await queued(engine, room, "second")
    async with row_locked(db, head), engine.database.connection() as connection:
        assert await claim(connection, room[1]) == []
    (claimed,) = await claim(db, room[1])
    assert claimed.id == head
    assert await claim(db, room[1]) == [], "its successor waits until it has finished"


@pytest.mark.parametrize("status", ["answered", "failed"])
async def test_what_has_finished_is_never_claimed_again(engine: Engine, db: asyncpg.Connection, status: str) -> None:
    room = await engine.room()
    prompt_id = await queued(engine, room, "hi")
    (claimed,) = await claim(db, room[1])
    error = ("code", "text") if status == "failed" else (None, None)
    finished = await finish_store.finish(
        db, [Ending(prompt_id, claimed.fence, status, *error, response_id="r", reply="done")], 5
    )
    assert finished.changed == {prompt_id}
    assert await claim(db, room[1]) == []
    again = await finish_store.finish(
        db, [Ending(prompt_id, claimed.fence, status, *error, response_id="x", reply="twice")], 5
    )
    assert again.changed == again.locked == set()


async def test_a_prompt_that_outlived_every_attempt_is_only_given_up(engine: Engine, db: asyncpg.Connection) -> None:
    room = await engine.room()
    await queued(engine, room, "deadly")
    for attempt in (1, 2):
        (claimed,) = await claim(db, room[1], attempts=2)
        assert (claimed.attempt, claimed.exhausted) == (attempt, False)
        await leases_run_out(db)
    (claimed,) = await claim(db, room[1], attempts=2)
    assert (claimed.attempt, claimed.exhausted) == (2, True)


async def test_of_the_prompts_that_may_be_what_kills_processes_one_is_claimed_at_a_time(
    engine: Engine, db: asyncpg.Connection
) -> None:
    rooms = [await engine.room() for _ in range(4)]
    for room in rooms:
        await queued(engine, room, "hi")
    names = [room[1] for room in rooms]
    for _ in range(2):
        assert len(await claim(db, *names)) == 4, "one death may be chance"
        await leases_run_out(db)
    fresh = await engine.room()
    await queued(engine, fresh, "hi")
    claimed = await claim(db, *names, fresh[1])
    assert sorted((one.suspect, one.attempt) for one in claimed) == [(False, 1), (True, 3)]
    assert await claim(db, *names, suspects=0) == []


async def test_a_process_that_takes_its_own_prompt_over_ends_its_earlier_attempt(
    engine: Engine, db: asyncpg.Connection
) -> None:
    room = await engine.room()
    engine.gemini.script(Behaviour(hang=True), Behaviour(text="the second"))
    verdict = await engine.send(room, "hi")
    await engine.gemini.wait_for_calls(1)
    await leases_run_out(db)
    await engine.redis.xadd(STREAM, {"chatroom": str(room[1])})
    prompt = await engine.finished(room, verdict.prompt_id)
    assert prompt.reply is not None and (prompt.reply.content, prompt.attempts) == ("the second", 2)
    await engine.gemini.wait_until(lambda: engine.gemini.calls[0].cancelled)
    await at_rest(engine)


async def test_an_attempt_that_takes_longer_than_a_lease_keeps_it_by_its_heartbeat(
    database_url: str, redis_url: str, db: asyncpg.Connection
) -> None:
    async with (
        running(database_url, redis_url, prompt_lease_seconds=1) as one,
        running(database_url, redis_url, prompt_lease_seconds=1) as other,
    ):
        answer = asyncio.Event()
        one.gemini.default = other.gemini.default = Behaviour(hold=answer)
        room = await one.room()
        verdict = await one.send(room, "take your time")

        async def two_leases_later() -> bool:
            return bool(await db.fetchval("SELECT lease_until > created_at + interval '3 seconds' FROM prompts"))

        await until(two_leases_later, "the lease extended")
        answer.set()
        prompt = await one.finished(room, verdict.prompt_id)
        assert (prompt.status, prompt.attempts) == ("answered", 1)


async def test_an_attempt_that_has_lost_its_lease_is_cut_off_by_the_next_heartbeat_and_lets_its_hint_go(
    database_url: str, redis_url: str, db: asyncpg.Connection
) -> None:
    async with running(database_url, redis_url, prompt_lease_seconds=1) as engine:
        engine.gemini.default = Behaviour(hang=True)
        lost = metrics.LEASES_LOST._value.get()
        await engine.send(await engine.room(), "hi")
        await engine.gemini.wait_for_calls(1)
        await db.execute(
            "UPDATE prompts SET fence = fence + 1, leased_by = 'somebody', lease_until = now() + interval '1 hour'"
        )
        await engine.gemini.wait_until(lambda: engine.gemini.calls[0].cancelled)
        await at_rest(engine)
        assert metrics.LEASES_LOST._value.get() == lost + 1
        assert await db.fetchval("SELECT status || ' ' || leased_by FROM prompts") == "running somebody"
