"""Messages put into rooms by the thousand, and the search over them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import asyncpg

from gembackend.messages.search import Found, search
from gembackend.messages.search_indexer import SearchIndexer
from gembackend.messages.search_store import Place
from gembackend.plumbing.ids import new_id
from gembackend.plumbing.postgres import Database
from tests.whole import Whole

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


async def looked_up(whole: Whole, text: str, more: str = "") -> Any:
    """What a search answers."""
    answer = await whole.client.call("GET", f"/v1/search?q={quote(text)}{more}")
    assert answer.status == 200, answer.body
    return answer.body


async def found(whole: Whole, text: str) -> list[str]:
    """The contents that a search finds, all on one page."""
    page = await looked_up(whole, text)
    assert (page["next_cursor"], page["complete"]) == (None, True)
    return [message["content"] for message in page["messages"]]


async def make_room(db: asyncpg.Connection, user: UUID | None = None) -> UUID:
    """A room of a new user, or of this one."""
    room = new_id()
    if user is None:
        user = new_id()
        await db.execute("INSERT INTO users (id, phone, password_hash) VALUES ($1, $2, 'x')", user, _phone(user))
    await db.execute("INSERT INTO chatrooms_metadata (id, user_id, name) VALUES ($1, $2, 'room')", room, user)
    return room


async def owner(db: asyncpg.Connection, room: UUID) -> UUID:
    """Whose room it is."""
    user: UUID = await db.fetchval("SELECT user_id FROM chatrooms_metadata WHERE id = $1", room)
    return user


async def say(
    db: asyncpg.Connection, room: UUID, contents: Sequence[str], times: Sequence[datetime] | None = None
) -> None:
    """Put messages into a room, a prompt each, one a second from NOON on unless told when, in one statement."""
    await db.execute(
        """
        WITH place AS (
            -- Far behind the prompts that are sent to the service.
            SELECT r.*, greatest(1000000, (SELECT max(sequence) FROM prompts p WHERE p.chatroom_id = r.id)) AS last
            FROM chatrooms_metadata r WHERE id = $1
        ), sent AS (
            INSERT INTO prompts (id, user_id, chatroom_id, sequence, content, status, request_id, finished_at)
            SELECT gen_random_uuid(), user_id, id, last + nr, 'q', 'answered', 'test', now()
            FROM place, generate_series(1, cardinality($2::text[])) nr
            RETURNING id, user_id, chatroom_id, sequence
        )
        INSERT INTO chatrooms_messages (id, user_id, chatroom_id, prompt_id, position, role, content, created_at)
        SELECT 'said-' || s.id, s.user_id, s.chatroom_id, s.id, 2 * s.sequence + 1, 'assistant',
               ($2::text[])[s.sequence - place.last], ($3::timestamptz[])[s.sequence - place.last]
        FROM sent s, place
        """,
        room,
        contents,
        times or [NOON + timedelta(seconds=number) for number in range(len(contents))],
    )


async def index(database: Database) -> int:
    """Bring everything that waits into the search; how many messages that was."""
    return await SearchIndexer(database).run_once()


@asynccontextmanager
async def opened(database_url: str, size: int = 2) -> AsyncIterator[Database]:
    """A pool of the service's."""
    database = Database(database_url, size)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def pages(
    connection: asyncpg.Connection, user: UUID, text: str, limit: int, before: Place | None = None
) -> list[Found]:
    """What a search finds, page by page to its end."""
    every = [await search(connection, user, text, before, limit)]
    while every[-1].next is not None:
        assert before is None or every[-1].next < before, "each page goes further"
        before = every[-1].next
        every.append(await search(connection, user, text, before, limit))
    return every


async def indexed(db: asyncpg.Connection) -> list[tuple[UUID, int]]:
    """The room and position of everything that is searched, each as often as it is there."""
    rows = await db.fetch(
        """
        SELECT chatroom_id, position FROM search_recent
        UNION ALL
        SELECT m.* FROM search_shelves s, unnest(s.rooms, s.positions) AS m (chatroom_id, position)
        ORDER BY 1, 2
        """
    )
    return [(row["chatroom_id"], row["position"]) for row in rows]


async def stored(db: asyncpg.Connection) -> list[tuple[UUID, int]]:
    """The room and position of every message."""
    rows = await db.fetch("SELECT chatroom_id, position FROM chatrooms_messages ORDER BY 1, 2")
    return [(row["chatroom_id"], row["position"]) for row in rows]


async def waiting(db: asyncpg.Connection) -> int:
    """Prompts in the queue."""
    return int(await db.fetchval("SELECT count(*) FROM search_queue"))


def _phone(user: UUID) -> str:
    return f"+1{user.int % 10**13:013d}"
