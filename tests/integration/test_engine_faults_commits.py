"""Storing what attempts ended in, when rows are locked, refused or odd."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

from gembackend.embedded.gemini import Behaviour
from gembackend.gemini.client import Gemini
from gembackend.gemini.faults import Reply
from gembackend.messages.rules import NewPrompt
from gembackend.plumbing import metrics, pooler
from gembackend.plumbing.ids import new_id
from gembackend.prompts import store
from gembackend.prompts.dead_letter_store import replay
from gembackend.prompts.stream import STREAM
from tests.engine import Engine, running
from tests.faults import at_rest, claim, commits_held, entries, queued, row_locked, somebody_waits


@pytest.fixture
async def engine(database_url: str, redis_url: str) -> AsyncIterator[Engine]:
    async with running(database_url, redis_url) as started:
        yield started


async def test_a_hint_is_acknowledged_only_after_the_commit(engine: Engine, db: asyncpg.Connection) -> None:
    room, answer = await engine.room(), asyncio.Event()
    engine.gemini.default = Behaviour(hold=answer)
    verdict = await engine.send(room, "hi")
    await engine.gemini.wait_for_calls(1)
    async with commits_held(db):
        answer.set()
        await somebody_waits(engine)
        assert await entries(engine) == (1, 1)
    await engine.finished(room, verdict.prompt_id)
    await at_rest(engine)


async def test_two_prompts_of_a_room_that_end_in_one_batch_both_let_their_hints_go(
    engine: Engine, db: asyncpg.Connection
) -> None:
    elsewhere, room = await engine.room(), await engine.room()
    first, together = asyncio.Event(), asyncio.Event()
    engine.gemini.rule(lambda call: Behaviour(hold=first if call.prompt == "first" else together))
    await engine.send(elsewhere, "first")
    taken_back = await engine.send(room, "cancelled just when it is answered")
    behind = await engine.send(room, "behind it")
    await engine.gemini.wait_for_calls(2)
    async with commits_held(db):
        first.set()
        await somebody_waits(engine)
        # The committer waits; what ends now is taken together.
        together.set()
        await engine.gemini.wait_until(lambda: engine.gemini.calls[1].finished is not None)
        await engine.fetch(
            "UPDATE prompts SET status = 'cancelled', finished_at = now(), lease_until = NULL WHERE id = $1",
            taken_back.prompt_id,
        )
        await engine.redis.xadd(STREAM, {"chatroom": str(room[1])})
        await engine.gemini.wait_for_calls(3)
        await engine.gemini.wait_until(lambda: all(call.finished for call in engine.gemini.calls))
    assert (await engine.finished(room, behind.prompt_id)).status == "answered"
    await at_rest(engine)


@pytest.mark.parametrize("table", ["prompts", "chatrooms_metadata", "users"])
async def test_an_answer_whose_rows_somebody_has_locked_holds_up_no_other_and_is_stored_afterwards(
    engine: Engine, db: asyncpg.Connection, table: str
) -> None:
    answer = asyncio.Event()
    engine.gemini.default = Behaviour(hold=answer)
    rooms = [await engine.room() for _ in range(6)]
    sent = [await engine.send(room, "hi") for room in rooms]
    await engine.gemini.wait_for_calls(len(sent))
    row = {"prompts": sent[0].prompt_id, "chatrooms_metadata": rooms[0][1], "users": rooms[0][0]}[table]
    async with db.transaction():
        await db.execute(f"SELECT FROM {table} WHERE id = $1 FOR UPDATE", row)
        answer.set()
        for room, verdict in list(zip(rooms, sent, strict=True))[1:]:
            assert (await engine.finished(room, verdict.prompt_id)).status == "answered"
        later = await engine.room()
        assert (await engine.ask(later, "and goes on")).status == "answered"
        assert (await engine.prompt(rooms[0], sent[0].prompt_id)).status == "running"
        assert metrics.ENDINGS_ASIDE._value.get() == 1
    prompt = await engine.finished(rooms[0], sent[0].prompt_id)
    assert (prompt.status, prompt.attempts) == ("answered", 1)
    await at_rest(engine)


async def test_one_row_that_takes_too_long_to_store_is_singled_out_and_holds_up_no_other(
    engine: Engine, db: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooler, "_SET", pooler._SET.replace("'1.3s'", "'200ms'"))
    await db.execute(
        """
        CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1); RETURN NEW; END $$;
        CREATE TRIGGER dawdle BEFORE INSERT ON chatrooms_messages FOR EACH ROW
            WHEN (NEW.content = 'slow') EXECUTE FUNCTION dawdle();
        """
    )
    answer = asyncio.Event()
    engine.gemini.default = Behaviour(hold=answer)
    rooms = [await engine.room() for _ in range(6)]
    sent = [await engine.send(room, "slow" if number == 2 else "hi") for number, room in enumerate(rooms)]
    await engine.gemini.wait_for_calls(len(sent))
    await engine.database.close()
    await engine.database.open()
    answer.set()
    for number, (room, verdict) in enumerate(zip(rooms, sent, strict=True)):
        if number != 2:
            assert (await engine.finished(room, verdict.prompt_id)).status == "answered"
    await db.execute("DROP TRIGGER dawdle ON chatrooms_messages")
    assert (await engine.finished(rooms[2], sent[2].prompt_id)).status == "answered"
    await at_rest(engine)


async def test_leases_are_extended_in_the_order_of_the_prompts_ids(engine: Engine, db: asyncpg.Connection) -> None:
    for actor in reversed(engine.engine.actors):
        await actor.stop(1)
    rooms = [await engine.room() for _ in range(20)]
    for room in rooms:
        await queued(engine, room, "hi")
    claimed = sorted(await claim(db, *(room for _, room in rooms)), key=lambda one: one.id, reverse=True)

    async def extend() -> set[UUID]:
        async with engine.database.connection() as other:
            return await store.extend_leases(other, [(one.id, one.fence) for one in claimed], 30)

    async with row_locked(db, claimed[0].id):
        extending = asyncio.create_task(extend())
        await somebody_waits(engine)
        first = "SELECT id FROM prompts WHERE id = $1 FOR UPDATE SKIP LOCKED"
        assert await db.fetchval(first, claimed[-1].id) is None, "whoever waits for the last one holds the first"
    assert await extending == {one.id for one in claimed}


async def test_one_row_that_is_refused_does_not_hold_up_those_committed_with_it(
    engine: Engine, db: asyncpg.Connection
) -> None:
    await db.execute("ALTER TABLE chatrooms_messages ADD CONSTRAINT whim CHECK (content <> 'unwelcome')")
    counted = metrics.PROMPTS_FINISHED.labels("failed", "answer_unstorable")._value.get()
    first, together, others = asyncio.Event(), asyncio.Event(), 9
    engine.gemini.rule(
        lambda call: {
            "first": Behaviour(hold=first),
            "bad": Behaviour(hold=together, text="unwelcome"),
        }.get(call.prompt, Behaviour(hold=together))
    )
    rooms = [await engine.room() for _ in range(others + 2)]
    texts = ["first", "bad", *(f"good {number}" for number in range(others))]
    sent = [await engine.send(room, text) for room, text in zip(rooms, texts, strict=True)]
    await engine.gemini.wait_for_calls(len(sent))
    async with commits_held(db):
        first.set()
        await somebody_waits(engine)
        together.set()
        await engine.gemini.wait_until(lambda: all(call.finished for call in engine.gemini.calls))
    prompts = [await engine.finished(room, verdict.prompt_id) for room, verdict in zip(rooms, sent, strict=True)]
    assert [prompt.status for prompt in prompts] == ["answered", "failed", *["answered"] * others]
    assert prompts[1].error is not None and prompts[1].error.code == "answer_unstorable"
    assert metrics.PROMPTS_FINISHED.labels("failed", "answer_unstorable")._value.get() == counted + 1
    assert await engine.fetch("SELECT sum(used) FROM prompt_usage") == others + 1, "what failed is not charged"
    await at_rest(engine)


async def test_a_deadlock_is_no_fault_of_the_row_and_is_tried_again(engine: Engine, db: asyncpg.Connection) -> None:
    await db.execute("CREATE SEQUENCE commits")
    await db.execute(
        """
        CREATE FUNCTION deadlocked() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('commits') < 3 THEN RAISE EXCEPTION 'as if' USING ERRCODE = 'deadlock_detected'; END IF;
            RETURN NEW;
        END $$
        """
    )
    await db.execute(
        "CREATE TRIGGER deadlocked BEFORE INSERT ON chatrooms_messages FOR EACH ROW EXECUTE FUNCTION deadlocked()"
    )
    prompt = await engine.ask(await engine.room(), "hi")
    assert (prompt.status, prompt.attempts) == ("answered", 1)


async def test_nul_and_lone_surrogates_are_left_out_of_what_is_stored(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def generate(*_arguments: object, **_options: object) -> Reply:
        return Reply(
            response_id="id\x00\ud800",
            text="a\x00b\ud800c\udfffd",
            finish_reason="STOP",
            block_reason=None,
            prompt_tokens=1,
            reply_tokens=1,
            model="m",
        )

    monkeypatch.setattr(Gemini, "generate", generate)
    prompt = await engine.ask(await engine.room(), "hi")
    assert prompt.reply is not None and (prompt.reply.id, prompt.reply.content) == ("id_A", "abcd")


async def test_a_replayed_prompt_that_fails_again_is_not_refunded_again(engine: Engine, db: asyncpg.Connection) -> None:
    room = await engine.room(await engine.user("Basic"))
    engine.gemini.rule(lambda call: Behaviour(finish_reason="SAFETY") if call.prompt == "bad" else None)
    bad = await engine.ask(room, "bad")
    assert (await engine.ask(room, "good")).status == "answered"
    for _ in range(2):
        assert await replay(db, [bad.id]) == [bad.id]
        await engine.redis.xadd(STREAM, {"chatroom": str(room[1])})
        assert (await engine.finished(room, bad.id)).status == "failed"
        assert await engine.fetch("SELECT used FROM prompt_usage") == 1


async def test_batches_that_cross_each_other_are_accepted_without_a_deadlock(
    engine: Engine, db: asyncpg.Connection
) -> None:
    rooms = [await engine.room() for _ in range(30)]
    async with engine.database.connection() as other:
        for _ in range(5):
            there, back = ([NewPrompt(new_id(), *room, "hi", None, "test") for room in rooms] for _ in range(2))
            verdicts = await asyncio.gather(
                store.accept(db, there, 5, 100, 100), store.accept(other, list(reversed(back)), 5, 100, 100)
            )
            assert {verdict.decision for batch in verdicts for verdict in batch} == {"accepted"}
