"""No statement of the search or of its index depends on statistics: each is counted by the pages that it touches."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from gembackend.messages import search_index_store as index_store
from gembackend.messages import search_store
from gembackend.messages.search_index_store import Queued, Room
from gembackend.messages.search_query import parse
from gembackend.plumbing.ids import new_id
from gembackend.plumbing.postgres import Database
from tests.integration.test_plans import Counting
from tests.searching import NOON, index, make_room, opened, owner, say

USERS, EACH = 40, 300
BATCH = 64

Work = Callable[[Any], Awaitable[object]]


class Watching(Counting):
    """Counts commands too."""

    async def execute(self, statement: str, *arguments: Any) -> str:
        """A command with its pages."""
        await self._count(statement, arguments)
        return await self._connection.execute(statement, *arguments)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as made:
        yield made


async def test_no_statement_touches_more_pages_than_its_result_needs(
    db: asyncpg.Connection, database: Database
) -> None:
    rooms = [await make_room(db) for _ in range(USERS)]
    for room in rooms:
        await say(db, room, [f"some words {number} " + "and more of them " * 20 for number in range(EACH)])
        await index(database)
        if room == rooms[0]:  # as if everything there is were one user's
            await db.execute("ANALYZE")
    for room in rooms:
        await say(db, room, ["some words"] * 50)
    user, query = await owner(db, rooms[0]), parse("words")
    idle = Watching(db)
    assert not await index_store.idle(idle)
    assert idle.pages < 20
    async with db.transaction():
        await index_store.lead(db)
        queued = await index_store.newest(db, BATCH)
        prompts, users = [prompt.prompt_id for prompt in queued], list({prompt.user_id for prompt in queued})
        texts = await index_store.texts(db, prompts, 1000)
        ids = [shelf.id for shelf in await search_store.shelves(db, user, None, None, 5)]
        hits = await search_store.recent(db, user, query, None, 50)
        place = search_store.Place(NOON, new_id(), 0)
        statements: dict[str, tuple[Work, int]] = {
            "newest": (lambda c: index_store.newest(c, BATCH), 10 * BATCH),
            "keep": (lambda c: index_store.keep(c, users, [text.chatroom_id for text in texts]), 10 * BATCH),
            "texts": (lambda c: index_store.texts(c, prompts, 1000), 10 * BATCH),
            "put": (lambda c: index_store.put(c, texts, [" some words "] * len(texts)), 50 * BATCH),
            "done": (lambda c: index_store.done(c, queued), 20 * BATCH),
            "crowded": (lambda c: index_store.crowded(c, users[:1], 256, 10**6), 600),
            "shelve": (lambda c: index_store.shelve(c, user, 50, 10**6), 2500),
            "shelves with": (lambda c: index_store.shelves_with(c, Room(rooms[0], user), 5), 50),
            "waiting": (lambda c: search_store.waiting(c, user, 5), 100),
            "recent": (lambda c: search_store.recent(c, user, query, None, 50), 600),
            "recent, older": (lambda c: search_store.recent(c, user, query, place, 50), 600),
            "shelves": (lambda c: search_store.shelves(c, user, place, None, 64), 50),
            "on shelves": (lambda c: search_store.on_shelves(c, user, ids, query, None, 50), 200),
            "messages": (lambda c: search_store.messages(c, user, hits), 10 * 50),
        }
        touched = {}
        for mode in ("force_custom_plan", "force_generic_plan"):
            await db.execute(f"SET plan_cache_mode = {mode}")
            for name, (work, most) in statements.items():
                counting = Watching(db)
                rest = db.transaction()
                await rest.start()
                await work(counting)
                await rest.rollback()
                touched[name, mode] = (counting.pages, most)
    assert {name: pages for name, pages in touched.items() if pages[0] > pages[1]} == {}
    assert touched["on shelves", "force_generic_plan"][0] > 1 and len(hits) == 50


async def test_no_plan_is_kept_from_when_the_queue_was_empty(db: asyncpg.Connection) -> None:
    room = await make_room(db)
    user = await owner(db, room)
    await db.execute("ANALYZE search_queue")
    for _ in range(10):  # after five executions a plan may be kept
        async with db.transaction():
            await index_store.lead(db)
            await index_store.done(db, [Queued(user, new_id(), (), 0) for _ in range(BATCH)])
    await say(db, room, ["some words"] * 2000)
    async with db.transaction():
        await index_store.lead(db)
        queued = await index_store.newest(db, BATCH)
        before = await touched_by_transaction(db)
        await index_store.done(db, queued)
        assert BATCH <= await touched_by_transaction(db) - before < 3 * BATCH


async def touched_by_transaction(db: asyncpg.Connection) -> int:
    """How many rows of the queue the transaction has read so far."""
    read = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'search_queue'"
    return int(await db.fetchval(read))
