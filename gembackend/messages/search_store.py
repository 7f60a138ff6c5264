"""The SQL of the search: it looks through the words of the user's own messages, and through nobody else's.

Newest first it goes over the messages of late, a row each, and then from shelf to shelf, where older ones stand
together. A shelf whose lexicon lacks a word is passed over; of the others the words are looked through, which is fast
(some hundred megabytes a second), linear in them, and exact for beginnings, phrases and parts alike.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from asyncpg import Record

from gembackend.messages.models import FoundMessage
from gembackend.messages.search_query import Query
from gembackend.plumbing.postgres import Connection


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a message stands in what a search finds, which is in the order of these, the other way round."""

    created_at: datetime
    prompt_id: UUID
    position: int


@dataclass(frozen=True, slots=True)
class Hit:
    """A message that has what was asked for; `size` is in bytes."""

    place: Place
    chatroom_id: UUID
    size: int


@dataclass(frozen=True, slots=True)
class Shelf:
    """Older messages that stand together: the time of the newest, and how many bytes their words are."""

    id: int
    newest: datetime
    weight: int


BY_KEYS = """
    SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
           set_config('enable_mergejoin', 'off', true), set_config('plan_cache_mode', 'force_custom_plan', true)
"""
"""In a transaction: no plan depends on statistics, which are old when many messages have come at once, nor is one kept
from when a table was empty: whatever it does seems free then."""


async def begin(connection: Connection) -> None:
    """The first statement of a search's transaction."""
    await connection.execute(BY_KEYS)


async def waiting(connection: Connection, user_id: UUID, lately: float) -> tuple[bool, bool]:
    """Whether messages of the user are not in the search yet, and whether some came so many seconds ago or less."""
    row = await connection.fetchrow(
        """
        SELECT EXISTS (SELECT FROM search_queue WHERE user_id = $1) AS some, EXISTS (
            SELECT FROM search_queue WHERE user_id = $1 AND queued_at > now() - make_interval(secs => $2)
        ) AS late
        """,
        user_id,
        lately,
    )
    assert row is not None
    return row["some"], row["late"]


async def recent(connection: Connection, user_id: UUID, query: Query, before: Place | None, limit: int) -> list[Hit]:
    """Up to `limit` of the messages of late, newest first."""
    asked = _Asked(6)
    rows = await connection.fetch(
        f"""
        {_HITS} search_recent m
        WHERE m.user_id = $1 AND {_OLDER} AND ({asked.of(query, "m.words")})
        {_NEWEST_FIRST} LIMIT $5
        """,
        user_id,
        *_key(before),
        limit,
        *asked.pieces,
    )
    return [_hit(row) for row in rows]


async def shelves(
    connection: Connection, user_id: UUID, before: Place | None, after: Shelf | None, limit: int
) -> list[Shelf]:
    """The next shelves of a user that have something older than a place, by their newest message."""
    rows = await connection.fetch(
        """
        SELECT id, newest, weight FROM search_shelves
        WHERE user_id = $1 AND ($2::timestamptz IS NULL OR oldest <= $2)
          AND ($3::timestamptz IS NULL OR (newest, id) < ($3, $4::bigint))
        ORDER BY newest DESC, id DESC LIMIT $5
        """,
        user_id,
        before and before.created_at,
        after and after.newest,
        after and after.id,
        limit,
    )
    return [Shelf(row["id"], row["newest"], row["weight"]) for row in rows]


async def on_shelves(
    connection: Connection, user_id: UUID, ids: Sequence[int], query: Query, before: Place | None, limit: int
) -> list[Hit]:
    """Up to `limit` of the messages on these shelves, newest first."""
    asked = _Asked(7)
    rows = await connection.fetch(
        f"""
        {_HITS} search_shelves s CROSS JOIN LATERAL unnest(s.times, s.prompts, s.positions, s.rooms, s.sizes, s.words)
            AS m (created_at, prompt_id, position, chatroom_id, size, words)
        WHERE s.user_id = $1 AND s.id = ANY ($6::bigint[]) AND ({asked.possible(query, "s.lexicon")})
          AND {_OLDER} AND ({asked.of(query, "m.words")})
        {_NEWEST_FIRST} LIMIT $5
        """,
        user_id,
        *_key(before),
        limit,
        ids,
        *asked.pieces,
    )
    return [_hit(row) for row in rows]


async def messages(connection: Connection, user_id: UUID, hits: Iterable[Hit]) -> list[FoundMessage]:
    """The messages themselves, in this order; one that has been deleted is left out."""
    keys = [(hit.chatroom_id, hit.place.position) for hit in hits]
    rows = await connection.fetch(
        """
        SELECT m.id, m.role, m.content, m.created_at, m.prompt_id, m.chatroom_id
        FROM unnest($2::uuid[], $3::bigint[]) WITH ORDINALITY AS hit (chatroom_id, position, nr)
        JOIN chatrooms_messages m ON m.chatroom_id = hit.chatroom_id AND m.position = hit.position
        WHERE m.user_id = $1 ORDER BY hit.nr
        """,
        user_id,
        [chatroom_id for chatroom_id, _ in keys],
        [position for _, position in keys],
    )
    return [FoundMessage(**row) for row in rows]


_HITS = "SELECT m.created_at, m.prompt_id, m.position, m.chatroom_id, m.size FROM"
_OLDER = "($2::timestamptz IS NULL OR (m.created_at, m.prompt_id, m.position) < ($2, $3::uuid, $4::bigint))"
_NEWEST_FIRST = "ORDER BY m.created_at DESC, m.prompt_id DESC, m.position DESC"


def _key(place: Place | None) -> tuple[datetime | None, UUID | None, int | None]:
    return (place.created_at, place.prompt_id, place.position) if place else (None, None, None)


def _hit(row: Record) -> Hit:
    return Hit(Place(row["created_at"], row["prompt_id"], row["position"]), row["chatroom_id"], row["size"])


class _Asked:
    """A query as conditions, and the arguments that they need, the first of which has a number of the caller's."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._numbers: dict[str, int] = {}

    @property
    def pieces(self) -> list[str]:
        """The arguments, in order."""
        return list(self._numbers)

    def of(self, query: Query, words: str) -> str:
        """Whether words have what is asked for; the longest pieces, which are likely to be rare, come first."""
        return " OR ".join(
            " AND ".join(
                [self._has(words, piece) for piece in sorted(wanted.required, key=len, reverse=True)]
                + [f"NOT {self._has(words, piece)}" for piece in wanted.excluded]
            )
            for wanted in query
        )

    def possible(self, query: Query, lexicon: str) -> str:
        """Whether there may be such words among those of a lexicon."""
        return " OR ".join(
            " AND ".join(self._has(lexicon, part) for piece in wanted.required for part in _parts(piece)) or "true"
            for wanted in query
        )

    def _has(self, column: str, piece: str) -> str:
        number = self._numbers.setdefault(piece, self._first + len(self._numbers))
        return f"strpos({column}, ${number}::text) > 0"


def _parts(piece: str) -> list[str]:
    """The words of a piece, each with the blanks that it has beside it."""
    words = piece.split(" ")
    last = len(words) - 1
    return [f"{' ' * (number > 0)}{word}{' ' * (number < last)}" for number, word in enumerate(words) if word]
