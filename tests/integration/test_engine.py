"""Prompts on their way: accepted, hinted, claimed, answered, committed, in order and beside each other."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gembackend.embedded.gemini import Behaviour, Call
from gembackend.live.polls import FinishPoll
from gembackend.live.waiters import Waiters
from gembackend.messages.rules import NewPrompt
from gembackend.plumbing import metrics
from gembackend.plumbing.ids import new_id
from gembackend.prompts.breaker import PAUSE, THRESHOLD
from tests.engine import Engine, running
from tests.faults import at_rest
from tests.processes import until


@pytest.fixture
async def engine(database_url: str, redis_url: str) -> AsyncIterator[Engine]:
    async with running(database_url, redis_url) as started:
        yield started


@pytest.mark.pooled
async def test_a_prompt_is_answered_and_its_messages_carry_geminis_response_id(engine: Engine) -> None:
    room = await engine.room()
    engine.gemini.script(Behaviour(text="forty-two", response_id="resp-1"))
    prompt = await engine.ask(room, "What is six times seven?")
    assert (prompt.status, prompt.attempts, prompt.error) == ("answered", 1, None)
    assert prompt.reply is not None and prompt.usage is not None
    assert (prompt.reply.id, prompt.reply.role, prompt.reply.content) == ("resp-1_A", "assistant", "forty-two")
    assert prompt.usage.prompt_tokens > 0 and prompt.usage.reply_tokens > 0
    assert await engine.fetch("SELECT content FROM chatrooms_messages WHERE id = 'resp-1_U'") == (
        "What is six times seven?"
    )
    await at_rest(engine)


async def test_earlier_exchanges_are_sent_as_context(engine: Engine) -> None:
    room = await engine.room()
    engine.gemini.script(Behaviour(text="one"), Behaviour(text="two"))
    await engine.ask(room, "first")
    await engine.ask(room, "second")
    contents = engine.gemini.calls[1].contents
    assert [(role, text) for role, text in contents] == [("user", "first"), ("model", "one"), ("user", "second")]
    assert "short" in engine.gemini.calls[0].system_instruction.lower()


async def test_the_context_is_as_long_as_the_setting_says(database_url: str, redis_url: str) -> None:
    async with running(database_url, redis_url, prompt_history_messages=4) as engine:
        room = await engine.room()
        for number in range(4):
            await engine.ask(room, f"question {number}")
        assert [text for role, text in engine.gemini.calls[-1].contents if role == "user"] == [
            "question 1",
            "question 2",
            "question 3",
        ]


@pytest.mark.parametrize(
    ("letter", "letters", "sent"),
    [("x", 60_000, [3, 4, 5, 6]), ("\U0001f600", 16_000, [3, 4, 5, 6]), ("x", 260_000, [6]), ("x", 300_000, [6])],
)
async def test_the_context_is_bounded_in_bytes_and_of_whole_exchanges_the_latest_one_at_any_rate(
    engine: Engine, letter: str, letters: int, sent: list[int]
) -> None:
    room = await engine.room(await engine.user("Pro"))
    for number in range(7):
        engine.gemini.script(Behaviour(text=f"answer {number}"))
        await engine.ask(room, f"question {number}")
    await engine.fetch(
        "UPDATE chatrooms_messages SET content = content || repeat($1, $2) WHERE role = 'assistant'", letter, letters
    )
    await engine.ask(room, "and now?")
    contents = engine.gemini.calls[-1].contents
    assert [text for role, text in contents if role == "user"] == [f"question {number}" for number in sent] + [
        "and now?"
    ]
    assert [text[:8] for role, text in contents if role == "model"] == [f"answer {number}" for number in sent]
    assert {len(text) for role, text in contents if role == "model"} == {8 + letters}


@pytest.mark.pooled
async def test_prompts_of_a_room_are_answered_one_after_another_in_their_order(engine: Engine) -> None:
    room = await engine.room()
    verdicts = await asyncio.gather(*(engine.send(room, f"number {number}") for number in range(15)))
    await asyncio.gather(*(engine.finished(room, verdict.prompt_id) for verdict in verdicts))
    async with engine.database.connection() as connection:
        rows = await connection.fetch(
            "SELECT content FROM chatrooms_messages WHERE chatroom_id = $1 AND role = 'user' ORDER BY position", room[1]
        )
        accepted = await connection.fetch(
            "SELECT content FROM prompts WHERE chatroom_id = $1 ORDER BY sequence", room[1]
        )
    assert [row["content"] for row in rows] == [row["content"] for row in accepted]
    assert [call.prompt for call in engine.gemini.calls] == [row["content"] for row in accepted]
    assert [len(call.contents) for call in engine.gemini.calls[:10]] == [2 * number + 1 for number in range(10)]


@pytest.mark.pooled
async def test_a_hundred_rooms_are_answered_side_by_side(database_url: str, redis_url: str) -> None:
    async with running(database_url, redis_url, prompt_workers=100) as engine:
        user = await engine.user()
        rooms = [await engine.room(user) for _ in range(100)]
        gate = asyncio.Event()
        engine.gemini.default = Behaviour(hold=gate)
        verdicts = await asyncio.gather(*(engine.send(room, "hello") for room in rooms))
        await engine.gemini.wait_for_calls(100)
        gate.set()
        prompts = await asyncio.gather(
            *(engine.finished(room, verdict.prompt_id) for room, verdict in zip(rooms, verdicts, strict=True))
        )
        assert {prompt.status for prompt in prompts} == {"answered"}
        await at_rest(engine)


async def test_no_more_prompts_than_workers_are_in_flight_and_rooms_take_turns(
    database_url: str, redis_url: str
) -> None:
    async with running(database_url, redis_url, prompt_workers=3) as engine:
        rooms = [await engine.room() for _ in range(6)]
        most, all_sent = 0, asyncio.Event()

        def count(_call: object) -> Behaviour:
            nonlocal most
            most = max(most, sum(1 for call in engine.gemini.calls if call.finished is None))
            return Behaviour(hold=all_sent, latency=0.01)

        engine.gemini.rule(count)
        sent = [(room, await engine.send(room, f"{turn}")) for turn in range(4) for room in rooms]
        all_sent.set()
        await asyncio.gather(*(engine.finished(room, verdict.prompt_id) for room, verdict in sent))
        assert most == 3
        first_half = [call.prompt for call in engine.gemini.calls[:12]]
        assert {"0", "1"} <= set(first_half), "rooms that came first did not keep the slots to themselves"
        assert first_half.count("0") == 6


async def test_after_a_429_half_as_many_prompts_are_in_flight(database_url: str, redis_url: str) -> None:
    async with running(database_url, redis_url, prompt_workers=6) as engine:
        most, all_sent = 0, asyncio.Event()

        def refuse(call: Call) -> Behaviour:
            nonlocal most
            if call.prompt == "too many":
                return Behaviour(status="RESOURCE_EXHAUSTED", retry_info=600)
            most = max(most, sum(1 for call in engine.gemini.calls if call.finished is None))
            # A status that neither raises the limit nor cuts it.
            return Behaviour(hold=all_sent, latency=0.01, status="INVALID_ARGUMENT")

        engine.gemini.rule(refuse)
        too_many = await engine.room()
        sent = await engine.send(too_many, "too many")

        async def put_off() -> bool:
            return (await engine.prompt(too_many, sent.prompt_id)).status == "queued"

        await engine.gemini.wait_for_calls(1)
        await until(put_off, "the first prompt put off")
        rooms = [await engine.room() for _ in range(6)]
        verdicts = [(room, await engine.send(room, f"{turn}")) for turn in range(2) for room in rooms]
        await engine.gemini.wait_for_calls(1 + 3)
        all_sent.set()
        await asyncio.gather(*(engine.finished(room, verdict.prompt_id) for room, verdict in verdicts))
        assert most == 3


async def test_while_gemini_fails_for_everybody_it_is_asked_by_one_prompt_after_a_pause(
    database_url: str, redis_url: str
) -> None:
    async with running(database_url, redis_url) as engine:
        rooms, calls = [await engine.room() for _ in range(3 * THRESHOLD)], engine.gemini.calls
        together = asyncio.Event()
        down = Behaviour(status="UNAVAILABLE", hold=together)
        engine.gemini.script(*[down] * THRESHOLD, Behaviour(latency=0.1))
        sent = [await engine.send(room, "hi") for room in rooms[:THRESHOLD]]
        await engine.gemini.wait_for_calls(THRESHOLD)
        together.set()

        async def given_up() -> bool:
            return bool(metrics.BREAKER_OPEN._value.get())

        await until(given_up, "Gemini taken for down")
        sent += [await engine.send(room, "hi") for room in rooms[THRESHOLD:]]
        for room, verdict in zip(rooms, sent, strict=True):
            assert (await engine.finished(room, verdict.prompt_id)).status == "answered"
        failures, probe, others = calls[:THRESHOLD], calls[THRESHOLD], calls[THRESHOLD + 1 :]
        assert probe.started - max(call.finished or 0 for call in failures) > PAUSE / 2
        assert min(call.started for call in others) >= (probe.finished or 0)


@pytest.mark.pooled
async def test_a_transient_failure_is_tried_again_and_costs_one_attempt(engine: Engine) -> None:
    room = await engine.room()
    engine.gemini.script(Behaviour(status="UNAVAILABLE"), Behaviour(text="now"))
    retried = metrics.PROMPTS_RETRIED.labels("gemini_unavailable")._value
    before = retried.get()
    prompt = await engine.ask(room, "try")
    assert (prompt.status, prompt.attempts) == ("answered", 2)
    assert retried.get() == before + 1
    assert prompt.reply is not None and prompt.reply.content == "now"


async def test_a_retry_makes_only_its_own_room_wait(engine: Engine) -> None:
    waiting, other = await engine.room(), await engine.room()
    engine.gemini.rule(
        lambda call: Behaviour(status="RESOURCE_EXHAUSTED", retry_info=600) if call.prompt == "patience" else None
    )
    verdict = await engine.send(waiting, "patience")
    behind = await engine.send(waiting, "behind it")
    await engine.gemini.wait_for_calls(1)
    assert (await engine.ask(other, "me")).status == "answered"
    assert (await engine.prompt(waiting, verdict.prompt_id)).status == "queued"
    assert (await engine.prompt(waiting, behind.prompt_id)).status == "queued"
    assert await engine.fetch(
        "SELECT available_at > now() + interval '590 seconds' FROM prompts WHERE id = $1", verdict.prompt_id
    )
    await at_rest(engine)


@pytest.mark.pooled
async def test_a_failure_for_good_tells_why_and_gives_the_quota_back(engine: Engine) -> None:
    user = await engine.user("Basic")
    room = await engine.room(user)
    engine.gemini.script(Behaviour(status="INVALID_ARGUMENT"), Behaviour(text="fine"))
    refused = await engine.send(room, "bad")
    behind = await engine.send(room, "good")
    prompt = await engine.finished(room, refused.prompt_id)
    assert prompt.status == "failed" and prompt.reply is None
    assert prompt.error is not None and prompt.error.code == "gemini_rejected" and prompt.error.message
    assert (await engine.finished(room, behind.prompt_id)).status == "answered"
    assert await engine.fetch("SELECT used FROM prompt_usage WHERE user_id = $1", user) == 1


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (Behaviour(finish_reason="SAFETY"), "content_blocked"),
        (Behaviour(block_reason="PROHIBITED_CONTENT"), "content_blocked"),
        (Behaviour(text=""), "empty_answer"),
        (Behaviour(parts=False), "empty_answer"),
        (Behaviour(candidates=False), "empty_answer"),
        (Behaviour(status="UNAUTHENTICATED"), "gemini_unauthorized"),
    ],
)
async def test_what_is_no_answer_is_never_stored_as_one(
    database_url: str, redis_url: str, behaviour: Behaviour, code: str
) -> None:
    async with running(database_url, redis_url, prompt_max_attempts=1) as engine:
        room = await engine.room()
        engine.gemini.default = behaviour
        prompt = await engine.ask(room, "hm")
        assert prompt.status == "failed" and prompt.error is not None
        assert prompt.error.code == code
        assert await engine.fetch("SELECT count(*) FROM chatrooms_messages") == 0


async def test_a_repeated_response_id_still_gives_every_message_an_id_of_its_own(engine: Engine) -> None:
    rooms = [await engine.room() for _ in range(8)]
    engine.gemini.default = Behaviour(response_id="always-the-same")
    prompts = await asyncio.gather(*(engine.ask(room, "hi") for room in rooms))
    assert {prompt.status for prompt in prompts} == {"answered"}
    assert len({prompt.reply.id for prompt in prompts if prompt.reply}) == 8
    assert all(prompt.reply and prompt.reply.id.startswith("always-the-same") for prompt in prompts)


async def test_a_reply_without_response_id_gets_one(engine: Engine) -> None:
    engine.gemini.default = Behaviour(response_id="")
    prompt = await engine.ask(await engine.room(), "hi")
    assert prompt.reply is not None and prompt.reply.id == f"{prompt.id}_A"


async def test_a_nul_in_a_reply_is_cleaned_away(engine: Engine) -> None:
    engine.gemini.default = Behaviour(text="be\x00fore")
    prompt = await engine.ask(await engine.room(), "hi")
    assert prompt.reply is not None and prompt.reply.content == "before"


@pytest.mark.pooled
async def test_fifty_parallel_prompts_with_five_left_accept_five(engine: Engine) -> None:
    user = await engine.user("Basic")
    rooms = [await engine.room(user) for _ in range(10)]
    verdicts = await asyncio.gather(*(engine.send(rooms[number % 10], "x") for number in range(50)))
    decisions = [verdict.decision for verdict in verdicts]
    assert decisions.count("accepted") == 5 and decisions.count("daily_limit_reached") == 45
    assert await engine.fetch("SELECT used FROM prompt_usage WHERE user_id = $1", user) == 5


@pytest.mark.pooled
async def test_one_idempotency_key_is_one_prompt_and_one_charge(engine: Engine) -> None:
    user = await engine.user("Basic")
    room = await engine.room(user)
    verdicts = await asyncio.gather(*(engine.send(room, "same", key="k") for _ in range(50)))
    assert len({verdict.prompt_id for verdict in verdicts}) == 1
    assert sorted({verdict.decision for verdict in verdicts}) == ["accepted", "replayed"]
    assert (await engine.send(room, "other text", key="k")).decision == "key_reused"
    assert await engine.fetch("SELECT used FROM prompt_usage WHERE user_id = $1", user) == 1


@pytest.mark.pooled
async def test_someone_elses_room_does_not_exist(engine: Engine) -> None:
    _, room = await engine.room()
    assert (await engine.send((await engine.user(), room), "hi")).decision == "not_found"


async def test_a_room_takes_so_many_unfinished_prompts_and_no_more(database_url: str, redis_url: str) -> None:
    async with running(database_url, redis_url, prompt_room_limit=3) as engine:
        room, gate = await engine.room(), asyncio.Event()
        engine.gemini.default = Behaviour(hold=gate)
        decisions = [(await engine.send(room, "x")).decision for _ in range(5)]
        assert decisions == ["accepted"] * 3 + ["room_busy"] * 2
        gate.set()


async def test_the_service_takes_so_many_unfinished_prompts_and_no_more(database_url: str, redis_url: str) -> None:
    async with running(database_url, redis_url, prompt_backlog_limit=4) as engine:
        gate = asyncio.Event()
        engine.gemini.default = Behaviour(hold=gate)
        rooms = [await engine.room() for _ in range(12)]
        verdicts = await asyncio.gather(*(engine.send(room, "x") for room in rooms))
        assert sorted(verdict.decision for verdict in verdicts) == ["accepted"] * 4 + ["backlog_full"] * 8
        gate.set()


async def test_a_full_backlog_is_told_only_to_who_would_be_accepted_otherwise(
    database_url: str, redis_url: str
) -> None:
    async with running(database_url, redis_url, prompt_backlog_limit=2, prompt_room_limit=1) as engine:
        gate = asyncio.Event()
        engine.gemini.default = Behaviour(hold=gate)
        first, second, third = [await engine.room() for _ in range(3)]
        earlier = await engine.send(first, "x", key="a key")
        await engine.send(second, "x")
        assert (await engine.send(third, "x")).decision == "backlog_full"
        assert (await engine.send(first, "y")).decision == "room_busy"
        assert (await engine.send((third[0], first[1]), "x")).decision == "not_found"
        again = await engine.send(first, "x", key="a key")
        assert (again.decision, again.prompt_id) == ("replayed", earlier.prompt_id)
        gate.set()


async def test_a_prompt_that_is_watched_before_it_is_accepted_does_not_count_as_finished(engine: Engine) -> None:
    room, prompt_id = await engine.room(), new_id()
    poll = FinishPoll(engine.database, engine.engine.waiters)
    with engine.engine.waiters.watch(prompt_id) as finish:
        assert await poll.run_once() == 0
        assert not await finish.within(0)
        await engine.engine.intake.accept(NewPrompt(prompt_id, *room, "hello", None, "test"))
        assert await finish.within(10)


async def test_the_poll_finds_what_no_notice_told_of(engine: Engine) -> None:
    prompt = await engine.ask(await engine.room(), "hello")
    waiters = Waiters()
    with waiters.watch(prompt.id) as finish:
        assert await FinishPoll(engine.database, waiters).run_once() == 1
        assert await finish.within(0)
