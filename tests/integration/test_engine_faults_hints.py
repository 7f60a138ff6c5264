"""Hints that are lost, repeated or stranded, and a Redis that is emptied."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from gembackend.plumbing import redis
from gembackend.plumbing.ids import new_id
from gembackend.plumbing.redis_state import RedisState
from gembackend.prompts import sweeper
from gembackend.prompts.admission import Admission
from gembackend.prompts.stream import GROUP, STREAM, Hint, Stream
from gembackend.prompts.sweeper import Sweep, Sweeper
from gembackend.prompts.writer import StreamWriter
from tests.engine import Engine, running
from tests.faults import at_rest, queued
from tests.processes import until


@pytest.fixture
async def engine(database_url: str, redis_url: str) -> AsyncIterator[Engine]:
    async with running(database_url, redis_url) as started:
        yield started


async def test_a_prompt_whose_hint_was_lost_is_found_by_the_sweeper(engine: Engine) -> None:
    room = await engine.room()
    prompt_id = await queued(engine, room, "nobody told you")
    assert (await engine.finished(room, prompt_id)).status == "answered"
    await at_rest(engine)


async def test_repeated_hints_and_hints_for_nothing_do_no_harm(engine: Engine) -> None:
    room = await engine.room()
    verdicts = [await engine.send(room, f"{number}") for number in range(5)]
    for chatroom in (str(room[1]), str(new_id()), "nonsense", "\x00"):
        for _ in range(20):
            await engine.redis.xadd(STREAM, {"chatroom": chatroom})
    await engine.redis.xadd(STREAM, {"something": "else"})
    for verdict in verdicts:
        assert (await engine.finished(room, verdict.prompt_id)).attempts == 1
    assert [call.prompt for call in engine.gemini.calls] == ["0", "1", "2", "3", "4"]
    await at_rest(engine)


async def test_after_redis_was_emptied_the_group_is_made_again_and_what_waited_goes_on(engine: Engine) -> None:
    waiting = await engine.room()
    await engine.ask(waiting, "before")
    await engine.redis.flushall()
    lost = await queued(engine, waiting, "its hint is gone")
    after = await engine.room()
    assert (await engine.ask(after, "after")).status == "answered"
    assert (await engine.finished(waiting, lost)).status == "answered"
    await at_rest(engine)


async def test_hints_that_redis_gave_in_an_answer_that_was_lost_are_read_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, lost = Stream.read, list[Hint]()

    async def reads(stream: Stream, count: int, after: str | None = None) -> list[Hint]:
        hints = await read(stream, count, after)
        if hints and not lost:
            lost.extend(hints)
            raise ConnectionError("the answer is lost")
        return hints

    monkeypatch.setattr(Stream, "read", reads)
    room = await engine.room()
    verdict = await engine.send(room, "hi")
    assert (await engine.finished(room, verdict.prompt_id)).attempts == 1
    assert [hint.chatroom_id for hint in lost] == [room[1]]
    await at_rest(engine)


async def test_hints_that_were_read_while_the_database_could_not_claim_are_read_again(
    engine: Engine, db: asyncpg.Connection
) -> None:
    await db.execute("CREATE SEQUENCE claims")
    await db.execute(
        """
        CREATE FUNCTION deadlocked() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('claims') < 2 THEN RAISE EXCEPTION 'as if' USING ERRCODE = 'deadlock_detected'; END IF;
            RETURN NEW;
        END $$
        """
    )
    await db.execute(
        """
        CREATE TRIGGER deadlocked BEFORE UPDATE ON prompts FOR EACH ROW WHEN (NEW.status = 'running')
        EXECUTE FUNCTION deadlocked()
        """
    )
    room = await engine.room()
    verdict = await engine.send(room, "hi")
    assert (await engine.finished(room, verdict.prompt_id)).attempts == 1
    await at_rest(engine)


async def test_entries_that_a_dead_consumer_holds_are_freed_and_it_is_removed_when_it_holds_nothing(
    redis_url: str,
) -> None:
    async with redis.connect(redis_url) as client:
        dead, alive = Stream(client, client, "dead"), Stream(client, client, "alive")
        await dead.ensure_group()
        room = new_id()
        await alive.write(hints=[room])
        (held,) = await dead.read(10)
        assert held.chatroom_id == room
        assert await alive.bury_consumers(-1.0) == 0, "what it holds would go with it"
        assert not await dead.leave()
        assert await alive.stranded(60, 10) == [], "it may be at work yet"
        assert await alive.stranded(0, 10) == [held]
        await alive.write(done=[held.entry_id])
        assert await alive.bury_consumers(60) == 0, "it may come back"
        assert await alive.bury_consumers(-1.0) == 2
        assert await client.xinfo_consumers(STREAM, GROUP) == []
        assert await client.xlen(STREAM) == 0


async def test_what_a_dead_process_read_and_never_worked_on_is_done_by_another(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "STRANDED_MARGIN_SECONDS", 0.0)
    async with running(database_url, redis_url) as earlier:
        room = await earlier.room()
    async with redis.connect(redis_url) as client:
        dead = Stream(client, client, "dead")
        await dead.ensure_group()
        await dead.write(hints=[room[1]])
        assert len(await dead.read(10)) == 1
    async with running(database_url, redis_url, prompt_lease_seconds=1) as engine:
        prompt_id = await queued(engine, room, "hi")
        assert (await engine.finished(room, prompt_id)).status == "answered"
        await at_rest(engine)


async def test_one_process_at_a_time_sweeps(database_url: str, redis_url: str, db: asyncpg.Connection) -> None:
    async with running(database_url, redis_url) as first, running(database_url, redis_url) as second:
        sweepers = [sweeper_of(first), sweeper_of(second)]
        turns = [await one.run_once() for one in sweepers * 2]
        assert sorted(turn.led for turn in turns[:2]) == [False, True]
        assert turns[2:] == turns[:2], "it goes on leading, beyond the statement that made it the leader"
        await db.execute("UPDATE leaders SET holder = 'a process that died', until = now() + interval '1 minute'")
        assert await asyncio.gather(*(one.run_once() for one in sweepers)) == [Sweep(led=False)] * 2
        await db.execute("UPDATE leaders SET until = now() - interval '1 second'")

        async def led() -> list[bool]:
            return [turn.led for turn in [await one.run_once() for one in sweepers] if turn.led]

        assert await until(led, "another leader") == [True]
    assert await db.fetchval("SELECT count(*) FROM leaders") == 0, "who stops makes way at once"


async def test_a_room_is_hinted_again_when_the_hint_has_not_helped_for_a_lease(
    engine: Engine, db: asyncpg.Connection
) -> None:
    room = await engine.room()
    stream = Stream(engine.redis, engine.redis, "nobody reads")
    state = RedisState()
    hinting = Sweeper(engine.database, stream, state, StreamWriter(stream, state), Admission(10), lease_seconds=1)
    for actor in reversed(engine.engine.actors):
        await actor.stop(1)
    await queued(engine, room, "hi")
    await db.execute("UPDATE prompts SET available_at = now() - interval '1 minute'")

    async def hinted() -> int:
        return (await hinting.run_once()).hinted

    assert await hinted() == 1
    assert await hinted() == 0, "it may only be waiting for a free slot"
    assert await until(hinted, "another hint", 5) == 1
    await db.execute("UPDATE prompts SET available_at = available_at + interval '1 microsecond'")
    assert await hinted() == 1, "it waits for another reason now"


def sweeper_of(engine: Engine) -> Sweeper:
    """The engine's sweeper."""
    return next(actor for actor in engine.engine.actors if isinstance(actor, Sweeper))
