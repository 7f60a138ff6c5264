"""The rude clients of a chaos run do what they are there for: the service has to do with what they ask, and a lot."""

import random
from collections.abc import AsyncIterator

import aiohttp
import asyncpg
import pytest

from ops import chaos_rude
from ops.chaos_bystanders import FILL
from ops.chaos_faults import LARGE_CHARS
from ops.chaos_rude import PATTERNS, Guest, Street, ask, hang_up, read_nothing, read_slowly, scrape, search
from tests.whole import Whole, whole_service


@pytest.fixture
async def whole(database_url: str, redis_url: str) -> AsyncIterator[Whole]:
    async with whole_service(database_url, redis_url) as started:
        await started.make_pro()
        yield started


@pytest.fixture
async def street(whole: Whole, db: asyncpg.Connection) -> AsyncIterator[Street]:
    full, asked = await whole.room(), await whole.room()
    await db.execute(FILL, full, list(PATTERNS), 200, 4, LARGE_CHARS)
    assert whole.client.token is not None
    async with aiohttp.ClientSession() as http:
        yield Street(http, [Guest(whole.client.token, full, asked)], random.Random(4), [whole.service.url])


async def test_what_rude_clients_ask_is_answered_at_length_or_refused_for_being_too_much(
    street: Street, db: asyncpg.Connection
) -> None:
    for manner in (search, ask, read_slowly, scrape):
        await manner(street)
    assert set(street.answers) <= {200, 202, 429} and street.answers[200] >= 2 and street.answers[202] == 1
    assert len(street.told) == 1 and set(street.done.values()) == {1, 8, 16}
    assert await db.fetchval("SELECT count(*) FROM prompts WHERE content LIKE '%' || $1", chaos_rude.RUDE_END) == 1
    assert await db.fetchval("SELECT max(length(content)) FROM chatrooms_messages") == LARGE_CHARS


async def test_whoever_hangs_up_or_reads_nothing_leaves_a_service_that_answers(
    whole: Whole, street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chaos_rude, "UNREAD_SECONDS", 0.2)
    for manner in (hang_up, read_nothing) * 4:
        await manner(street)
    assert street.done == {"hung up": 4, "read nothing": 4}
    assert (await whole.ask(street.guests[0].asked, "still there?"))["status"] == "answered"
