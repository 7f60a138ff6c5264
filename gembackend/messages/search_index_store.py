"""The SQL that brings messages into the search: from the queue to the rows of late, from there to shelves."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gembackend.messages.search_store import BY_KEYS
from gembackend.plumbing import locks
from gembackend.plumbing.postgres import Connection

PATIENCE_SECONDS = 5
"""A process that falls silent inside its transaction for so long loses it, and another goes on."""


@dataclass(frozen=True, slots=True)
class Queued:
    """A prompt in the queue and how many bytes its messages are; 0 when they have been deleted."""

    user_id: UUID
    prompt_id: UUID
    chatroom_ids: tuple[UUID, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Text:
    """What a message said, cut to the characters that are searched, and where it stands."""

    user_id: UUID
    chatroom_id: UUID
    position: int
    prompt_id: UUID
    created_at: datetime
    size: int
    content: str


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many prompts wait, counted up to a bound, and for how long the longest of those that were said first has."""

    count: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class Room:
    """A room that was deleted."""

    chatroom_id: UUID
    user_id: UUID


async def idle(connection: Connection) -> bool:
    """Whether there is nothing to do."""
    return bool(
        await connection.fetchval(
            """
            SELECT (SELECT max(said_at) FROM search_queue) IS NULL AND NOT EXISTS (SELECT FROM search_purges)
            """
        )
    )


async def lead(connection: Connection) -> bool:
    """Whether this transaction is the one of all processes that indexes, until it ends; its plans go by keys."""
    row = await connection.fetchrow(
        f"""
        {BY_KEYS}, pg_try_advisory_xact_lock($1) AS led,
        set_config('idle_in_transaction_session_timeout', $2, true)
        """,
        locks.INDEXING,
        f"{PATIENCE_SECONDS}s",
    )
    return row is not None and bool(row["led"])


async def newest(connection: Connection, most: int) -> list[Queued]:
    """Up to `most` prompts of the queue, those first that were said last."""
    queued = await connection.fetch("SELECT user_id, prompt_id FROM search_queue ORDER BY said_at DESC LIMIT $1", most)
    rows = await connection.fetch(
        """
        SELECT prompt_id, array_agg(DISTINCT chatroom_id) AS chatroom_ids, sum(octet_length(content)) AS size
        FROM chatrooms_messages WHERE prompt_id = ANY ($1::uuid[]) GROUP BY prompt_id
        """,
        [row["prompt_id"] for row in queued],
    )
    there = {row["prompt_id"]: (tuple(row["chatroom_ids"]), row["size"]) for row in rows}
    return [Queued(row["user_id"], row["prompt_id"], *there.get(row["prompt_id"], ((), 0))) for row in queued]


async def keep(connection: Connection, user_ids: Sequence[UUID], chatroom_ids: Sequence[UUID]) -> set[UUID]:
    """Those of the users and rooms that nobody deletes just now, and nobody can until the transaction ends."""
    rows = await connection.fetch(
        "SELECT id FROM users WHERE id = ANY ($1::uuid[]) ORDER BY id FOR KEY SHARE SKIP LOCKED", user_ids
    )
    rows += await connection.fetch(
        "SELECT id FROM chatrooms_metadata WHERE id = ANY ($1::uuid[]) ORDER BY id FOR KEY SHARE SKIP LOCKED",
        chatroom_ids,
    )
    return {row["id"] for row in rows}


async def texts(connection: Connection, prompt_ids: Sequence[UUID], longest: int) -> list[Text]:
    """The messages of prompts, no more than `longest` characters of each."""
    rows = await connection.fetch(
        """
        SELECT user_id, chatroom_id, position, prompt_id, created_at, octet_length(content) AS size,
               left(content, $2) AS content
        FROM chatrooms_messages WHERE prompt_id = ANY ($1::uuid[])
        """,
        prompt_ids,
        longest,
    )
    return [Text(**row) for row in rows]


async def put(connection: Connection, texts: Sequence[Text], words: Sequence[str]) -> None:
    """Put messages among those of late, each with its words."""
    await connection.execute(
        """
        INSERT INTO search_recent (user_id, chatroom_id, position, prompt_id, created_at, size, words)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::uuid[], $5::timestamptz[], $6::integer[],
                             $7::text[])
        ON CONFLICT DO NOTHING
        """,
        [text.user_id for text in texts],
        [text.chatroom_id for text in texts],
        [text.position for text in texts],
        [text.prompt_id for text in texts],
        [text.created_at for text in texts],
        [text.size for text in texts],
        words,
    )


async def done(connection: Connection, prompts: Sequence[Queued]) -> None:
    """Take prompts out of the queue."""
    await connection.execute(
        """
        DELETE FROM search_queue q USING unnest($1::uuid[], $2::uuid[]) AS t (user_id, prompt_id)
        WHERE q.user_id = t.user_id AND q.prompt_id = t.prompt_id
        """,
        [prompt.user_id for prompt in prompts],
        [prompt.prompt_id for prompt in prompts],
    )


async def put_off(connection: Connection, prompt: Queued) -> None:
    """Put a prompt behind all others of the queue."""
    await connection.execute(
        "UPDATE search_queue SET said_at = '-infinity' WHERE user_id = $1 AND prompt_id = $2",
        prompt.user_id,
        prompt.prompt_id,
    )


async def crowded(connection: Connection, user_ids: Sequence[UUID], most: int, weight: int) -> list[UUID]:
    """Those of the users who have more messages of late than `most`, or more than `weight` bytes of their words."""
    rows = await connection.fetch(
        """
        SELECT u.user_id FROM unnest($1::uuid[]) AS u (user_id), LATERAL (
            SELECT count(*) AS count, sum(size) AS weight FROM (
                SELECT octet_length(r.words) AS size FROM search_recent r
                WHERE r.user_id = u.user_id ORDER BY r.created_at DESC LIMIT $2 + 1
            ) newest
        ) recent
        WHERE recent.count > $2 OR recent.weight > $3
        """,
        user_ids,
        most,
        weight,
    )
    return [row["user_id"] for row in rows]


_SHELVE = """
    INSERT INTO search_shelves (user_id, oldest, newest, weight, rooms, positions, prompts, times, sizes, words,
                                lexicon)
    SELECT user_id, min(created_at), max(created_at), sum(octet_length(words)), array_agg(chatroom_id),
           array_agg(position), array_agg(prompt_id), array_agg(created_at), array_agg(size), array_agg(words),
           coalesce((
               SELECT ' ' || string_agg(word, ' ') || ' '
               FROM (SELECT DISTINCT word FROM shelved, string_to_table(btrim(words, ' '), ' ') AS word) distinct_words
           ), '')
    FROM shelved GROUP BY user_id
"""
"""Makes a shelf of the rows of `shelved`, all of one user."""

_THE_OLDEST = """
    WITH ordered AS (
        SELECT chatroom_id, position, row_number() OVER oldest_first AS place,
               sum(octet_length(words)) OVER oldest_first AS weight
        FROM search_recent WHERE user_id = $1
        WINDOW oldest_first AS (ORDER BY created_at, prompt_id, position)
    ), free AS (
        SELECT r.chatroom_id, r.position FROM search_recent r JOIN ordered o USING (chatroom_id, position)
        WHERE r.user_id = $1 AND (o.place = 1 OR (o.place <= $2 AND o.weight <= $3))
        FOR UPDATE OF r SKIP LOCKED
    ), shelved AS (
        DELETE FROM search_recent r USING free f
        WHERE r.user_id = $1 AND r.chatroom_id = f.chatroom_id AND r.position = f.position
        RETURNING r.*
    )
"""

_THE_REST = """
    WITH old AS (
        DELETE FROM search_shelves WHERE id = $1 RETURNING *
    ), shelved AS (
        SELECT old.user_id, m.*
        FROM old, unnest(old.rooms, old.positions, old.prompts, old.times, old.sizes, old.words)
            AS m (chatroom_id, position, prompt_id, created_at, size, words)
        WHERE m.chatroom_id <> $2
    )
"""


async def shelve(connection: Connection, user_id: UUID, most: int, weight: int) -> None:
    """Make a shelf of the oldest messages of late of a user: `most`, fewer if they are over `weight`, at least one."""
    await connection.execute(_THE_OLDEST + _SHELVE, user_id, most, weight)


async def deleted_rooms(connection: Connection, most: int) -> list[Room]:
    """Rooms whose words may still be on shelves."""
    rows = await connection.fetch("SELECT chatroom_id, user_id FROM search_purges ORDER BY queued_at LIMIT $1", most)
    return [Room(**row) for row in rows]


async def shelves_with(connection: Connection, room: Room, most: int) -> list[int]:
    """Up to `most` of the shelves that have something of a room."""
    rows = await connection.fetch(
        "SELECT id FROM search_shelves WHERE user_id = $1 AND $2 = ANY (rooms) ORDER BY id LIMIT $3",
        room.user_id,
        room.chatroom_id,
        most,
    )
    return [row["id"] for row in rows]


async def take_out(connection: Connection, shelf_id: int, room: Room) -> None:
    """Replace a shelf by one without a room, if anything is left."""
    await connection.execute(_THE_REST + _SHELVE, shelf_id, room.chatroom_id)


async def purged(connection: Connection, room: Room) -> None:
    """Nothing of a room is left."""
    await connection.execute("DELETE FROM search_purges WHERE chatroom_id = $1", room.chatroom_id)


async def backlog(connection: Connection, most: int) -> Backlog:
    """How much waits to be searched, looking at no more than `most`."""
    row = await connection.fetchrow(
        """
        SELECT count(*) AS count, coalesce(extract(epoch FROM now() - min(queued_at)), 0)::float8 AS oldest_seconds
        FROM (SELECT queued_at FROM search_queue ORDER BY said_at LIMIT $1) waiting
        """,
        most,
    )
    assert row is not None
    return Backlog(row["count"], max(0.0, row["oldest_seconds"]))
