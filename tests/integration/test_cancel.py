"""Prompts taken back by their user: queued, running here, running elsewhere, finished."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from gembackend.chatrooms import store as chatrooms
from gembackend.embedded.gemini import Behaviour
from gembackend.plumbing import metrics
from gembackend.plumbing.ids import new_id
from tests.engine import Engine, running, settings
from tests.faults import at_rest


@pytest.fixture
async def engine(database_url: str, redis_url: str) -> AsyncIterator[Engine]:
    """An engine whose leases are so long that no heartbeat has a part in anything."""
    async with running(database_url, redis_url, prompt_lease_seconds=3600) as started:
        yield started


@pytest.mark.pooled
async def test_a_queued_prompt_is_taken_back_for_nothing(engine: Engine) -> None:
    user = await engine.user("Basic")
    room, gate = await engine.room(user), asyncio.Event()
    engine.gemini.script(Behaviour(hold=gate))
    first, second = await engine.send(room, "first"), await engine.send(room, "second")
    third = await engine.send(room, "third")
    await engine.gemini.wait_for_calls(1)
    assert second.prompt_id is not None
    assert await engine.engine.canceller.cancel(user, second.prompt_id) == "cancelled"
    assert await engine.fetch("SELECT used FROM prompt_usage WHERE user_id = $1", user) == 2
    gate.set()
    assert (await engine.finished(room, third.prompt_id)).status == "answered"
    assert (await engine.prompt(room, first.prompt_id)).status == "answered"
    taken_back = await engine.prompt(room, second.prompt_id)
    assert (taken_back.status, taken_back.attempts, taken_back.reply) == ("cancelled", 0, None)
    assert [call.prompt for call in engine.gemini.calls] == ["first", "third"]


@pytest.mark.pooled
async def test_a_running_prompt_is_taken_back_its_call_closed_and_its_room_goes_on(engine: Engine) -> None:
    user = await engine.user("Basic")
    room = await engine.room(user)
    engine.gemini.script(Behaviour(hang=True))
    hanging, behind = await engine.send(room, "hangs"), await engine.send(room, "behind")
    await engine.gemini.wait_for_calls(1)
    assert hanging.prompt_id is not None
    assert await engine.engine.canceller.cancel(user, hanging.prompt_id) == "cancelled"
    await engine.gemini.wait_until(lambda: engine.gemini.calls[0].cancelled)
    assert (await engine.finished(room, behind.prompt_id)).status == "answered"
    assert await engine.fetch("SELECT used FROM prompt_usage WHERE user_id = $1", user) == 2, "its attempt was made"
    assert await engine.fetch("SELECT count(*) FROM chatrooms_messages") == 2


async def test_a_prompt_that_another_process_works_on_is_taken_back_too(
    engine: Engine, database_url: str, redis_url: str
) -> None:
    room = await engine.room()
    engine.gemini.script(Behaviour(hang=True))
    hanging = await engine.send(room, "hangs")
    assert hanging.prompt_id is not None
    await engine.gemini.wait_for_calls(1)
    other = Engine(settings(database_url, redis_url, engine.gemini.url), engine.gemini)
    await other.start()
    try:
        assert await other.engine.canceller.cancel(room[0], hanging.prompt_id) == "cancelled"
        await engine.gemini.wait_until(lambda: engine.gemini.calls[0].cancelled)
        assert (await other.ask(room, "goes on")).status == "answered"
    finally:
        await other.stop()


async def test_a_finished_prompt_and_someone_elses_cannot_be_taken_back(engine: Engine) -> None:
    room = await engine.room()
    prompt = await engine.ask(room, "done")
    assert await engine.engine.canceller.cancel(room[0], prompt.id) == "finished"
    assert await engine.engine.canceller.cancel(await engine.user(), prompt.id) == "not_found"
    assert await engine.engine.canceller.cancel(room[0], new_id()) == "not_found"
    assert (await engine.prompt(room, prompt.id)).status == "answered"


@pytest.mark.pooled
async def test_cancelling_and_answering_at_once_leaves_one_of_them(engine: Engine) -> None:
    rooms = [await engine.room() for _ in range(20)]
    engine.gemini.rule(lambda _: Behaviour(latency=0.01))
    sent = [(room, await engine.send(room, "race")) for room in rooms]

    async def take_back(user: object, prompt_id: object) -> str:
        return await engine.engine.canceller.cancel(user, prompt_id)  # type: ignore[arg-type]

    answers = await asyncio.gather(*(take_back(room[0], verdict.prompt_id) for room, verdict in sent))
    for (room, verdict), answer in zip(sent, answers, strict=True):
        prompt = await engine.finished(room, verdict.prompt_id)
        assert prompt.status == {"cancelled": "cancelled", "finished": "answered"}[answer]
        assert (prompt.reply is None) == (answer == "cancelled")


async def test_what_runs_in_a_room_that_is_deleted_is_closed_at_once_in_whichever_process(
    engine: Engine, database_url: str, redis_url: str
) -> None:
    user = await engine.user("Basic")
    room = await engine.room(user)
    engine.gemini.script(Behaviour(hang=True))
    hanging, behind = await engine.send(room, "hangs"), await engine.send(room, "behind")
    await engine.gemini.wait_for_calls(1)
    assert hanging.prompt_id and behind.prompt_id
    stale, lost = metrics.STALE_WRITES._value.get(), metrics.LEASES_LOST._value.get()
    other = Engine(settings(database_url, redis_url, engine.gemini.url), engine.gemini)
    await other.start()
    try:
        with (
            engine.engine.waiters.watch(hanging.prompt_id) as here,
            other.engine.waiters.watch(behind.prompt_id) as there,
            engine.engine.feed.listen(room[1]) as ear,
        ):
            async with other.database.transaction() as connection:
                dropped = await chatrooms.delete(connection, *room)
            assert set(dropped or ()) == {hanging.prompt_id, behind.prompt_id}
            other.engine.canceller.dropped([room[1]], dropped or [])
            await engine.gemini.wait_until(lambda: engine.gemini.calls[0].cancelled)
            assert await here.within(20) and await there.within(20)
            assert await ear.heard(20)
        await at_rest(engine)
    finally:
        await other.stop()
    assert engine.gemini.arrived == 1, "what was behind it never began"
    assert (metrics.STALE_WRITES._value.get(), metrics.LEASES_LOST._value.get()) == (stale, lost)
    assert await engine.fetch("SELECT used FROM prompt_usage WHERE user_id = $1", user) == 1


async def test_what_runs_in_this_process_is_closed_without_redis(engine: Engine, db: asyncpg.Connection) -> None:
    room = await engine.room()
    engine.gemini.script(Behaviour(hang=True))
    await engine.send(room, "hangs")
    await engine.gemini.wait_for_calls(1)
    (listener,) = (actor for actor in engine.engine.actors if actor.name == "listener")
    await listener.stop(1)
    async with db.transaction():
        dropped = await chatrooms.delete(db, *room)
    engine.engine.canceller.dropped([room[1]], dropped or [])
    await engine.gemini.wait_until(lambda: engine.gemini.calls[0].cancelled)
