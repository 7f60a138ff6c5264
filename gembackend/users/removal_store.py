"""The SQL of deleting rooms, which may be large, without being in anybody's way."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from gembackend.plumbing.postgres import Connection

PROMPTS_IN_A_STATEMENT = 5000
"""How many prompts, with two messages each, one statement deletes at most: it takes a fraction of what it may."""


@dataclass(frozen=True, slots=True)
class Room:
    """A room, and the sequence of its newest prompt."""

    id: UUID
    last_sequence: int


@dataclass(frozen=True, slots=True)
class Part:
    """Of these rooms what belongs to prompts from sequence `first` on and before `end`."""

    chatroom_ids: list[UUID]
    first: int
    end: int


async def clear(connection: Connection, rooms: Sequence[Room]) -> None:
    """Delete what has finished in rooms that are about to be deleted, in the same transaction.

    That may take long, and nobody waits for it: rooms, their users and prompts that still run are not locked. Whoever
    waited for one of those would have others' prompts with it. Each statement does a bounded part, so that however
    large the rooms are none is given up for its time.
    """
    for part in parts(rooms):
        where = (part.chatroom_ids, part.first, part.end)
        await connection.execute(
            """
            DELETE FROM chatrooms_messages
            WHERE chatroom_id = ANY ($1::uuid[]) AND position >= 2 * $2::bigint AND position < 2 * $3::bigint
            """,
            *where,
        )
        await connection.execute(
            """
            DELETE FROM prompts
            WHERE chatroom_id = ANY ($1::uuid[]) AND sequence >= $2 AND sequence < $3
              AND status NOT IN ('queued', 'running')
            """,
            *where,
        )


def parts(rooms: Sequence[Room]) -> Iterator[Part]:
    """Rooms in parts of at most PROMPTS_IN_A_STATEMENT: small ones together, large ones in pieces."""
    together: list[UUID] = []
    prompts = 0
    for room in rooms:
        if room.last_sequence >= PROMPTS_IN_A_STATEMENT:
            for first in range(0, room.last_sequence + 1, PROMPTS_IN_A_STATEMENT):
                yield Part([room.id], first, first + PROMPTS_IN_A_STATEMENT)
            continue
        if prompts + room.last_sequence > PROMPTS_IN_A_STATEMENT:
            yield Part(together, 0, PROMPTS_IN_A_STATEMENT)
            together, prompts = [], 0
        together.append(room.id)
        prompts += room.last_sequence
    if together:
        yield Part(together, 0, PROMPTS_IN_A_STATEMENT)
