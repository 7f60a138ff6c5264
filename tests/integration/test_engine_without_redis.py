"""Redis is a hint: whatever is the matter with it, what was accepted is answered, in order and once."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from gembackend.embedded.gemini import Behaviour
from tests.engine import Engine, running
from tests.faults import at_rest, entries, queued
from tests.processes import until
from tests.sick_redis import OUTAGES, Outage, SickRedis, a_redis

ROOMS, EACH = 6, 3


@pytest.fixture
async def sick() -> AsyncIterator[SickRedis]:
    async with a_redis() as started:
        yield started


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: outage.__name__)
async def test_prompts_are_answered_in_order_while_redis_does_not_serve_and_what_it_kept_back_is_made_good(
    outage: Outage, database_url: str, sick: SickRedis
) -> None:
    async with running(database_url, sick.url) as one, running(database_url, sick.url) as other:
        engines, told = [one, other], asyncio.Event()
        rooms = [await one.room() for _ in range(ROOMS)]
        assert (await one.ask(rooms[0], "before")).status == "answered"
        for engine in engines:
            engine.gemini.default = Behaviour(hold=told)
        async with outage(sick):
            sent: defaultdict[tuple[UUID, UUID], list[UUID | None]] = defaultdict(list)
            for turn in range(EACH):
                for number, room in enumerate(rooms):
                    verdict = await engines[(turn + number) % 2].send(room, f"{number} {turn}")
                    sent[room].append(verdict.prompt_id)
            elsewhere = await one.room()
            sent[elsewhere].append(await queued(one, elsewhere, "accepted by a process that died"))
            await until(lambda: _troubles(engines, OUTAGES[outage]), "the reason told")
            told.set()
            for room, prompt_ids in sent.items():
                prompts = [await one.finished(room, prompt_id) for prompt_id in prompt_ids]
                assert [(prompt.status, prompt.attempts) for prompt in prompts] == [("answered", 1)] * len(prompts)
                ends = [prompt.finished_at for prompt in prompts if prompt.finished_at]
                assert len(ends) == len(prompts) and ends == sorted(ends)
            assert [actor.health() for engine in engines for actor in engine.engine.actors if actor.health()] == []
        await until(lambda: _troubles(engines, None), "all is well again")
        assert (await other.ask(rooms[0], "after")).status == "answered"
        await at_rest(one)
        assert await one.fetch("SELECT count(*) FROM prompts WHERE attempts <> 1") == 0


async def test_without_redis_no_process_has_more_in_flight_than_it_has_workers(
    database_url: str, sick: SickRedis
) -> None:
    answer = asyncio.Event()
    async with (
        running(database_url, sick.url, prompt_workers=2) as one,
        running(database_url, sick.url, prompt_workers=3) as other,
    ):
        for engine in (one, other):
            engine.gemini.default = Behaviour(hold=answer)
        rooms = [await one.room() for _ in range(12)]
        async with sick.full():
            verdicts = [await (one, other)[number % 2].send(room, "hi") for number, room in enumerate(rooms)]
            await one.gemini.wait_for_calls(2)
            await other.gemini.wait_for_calls(3)
            assert await one.fetch("SELECT count(*) FROM prompts WHERE status = 'running'") == 5
            answer.set()
            for room, verdict in zip(rooms, verdicts, strict=True):
                assert (await one.finished(room, verdict.prompt_id)).attempts == 1


async def test_hints_that_were_dropped_are_sent_when_redis_serves_again_though_this_process_has_no_slot_free(
    database_url: str, sick: SickRedis
) -> None:
    answer = asyncio.Event()
    async with running(database_url, sick.url, prompt_workers=1) as busy:
        busy.gemini.default = Behaviour(hold=answer)
        rooms = [await busy.room() for _ in range(3)]
        async with sick.full():
            verdicts = [await busy.send(room, "hi") for room in rooms]
            await busy.gemini.wait_for_calls(1)
            await until(lambda: _troubles([busy], OUTAGES[SickRedis.full]), "the trouble noticed")
        async with running(database_url, sick.url) as idle:
            await idle.gemini.wait_for_calls(2)
        answer.set()
        for room, verdict in zip(rooms, verdicts, strict=True):
            assert (await busy.finished(room, verdict.prompt_id)).status == "answered"


async def test_hints_that_served_while_redis_took_no_acknowledgement_are_acknowledged_when_it_does(
    database_url: str, sick: SickRedis
) -> None:
    answer = asyncio.Event()
    async with running(database_url, sick.url) as engine:
        engine.gemini.rule(lambda call: Behaviour(hold=answer) if call.prompt == "before" else None)
        rooms = [await engine.room() for _ in range(3)]
        sent = [await engine.send(room, "before") for room in rooms]
        await engine.gemini.wait_for_calls(3)
        async with sick.forbidding("xack", "xdel"):
            answer.set()
            for room, verdict in zip(rooms, sent, strict=True):
                assert (await engine.finished(room, verdict.prompt_id)).attempts == 1
            failures = engine.engine.redis.failures
            assert (await engine.ask(rooms[0], "meanwhile")).status == "answered"

            async def tried_again() -> bool:
                return engine.engine.redis.failures > failures + 1

            await until(tried_again, "Redis asked again and again")
            assert (await entries(engine))[1] >= 3
        await at_rest(engine)


async def _troubles(engines: list[Engine], reason: str | None) -> bool:
    """Whether each of the engines tells this of Redis."""
    return all(engine.engine.redis.trouble == reason for engine in engines)
