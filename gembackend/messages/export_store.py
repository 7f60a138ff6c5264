"""The SQL of an export. Ownership is in every WHERE: what is not the user's does not exist."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gembackend.chatrooms.models import Chatroom
from gembackend.messages import store
from gembackend.messages.models import Message, Prompt
from gembackend.plumbing.postgres import Connection


@dataclass(frozen=True, slots=True)
class Begun:
    """A room at one moment: its last prompt's sequence and last message's position (0 and -1 when there is none),
    and its unfinished prompts with their sequences, which are few and will change."""

    chatroom: Chatroom
    exported_at: datetime
    last_sequence: int
    last_position: int
    unfinished: tuple[tuple[int, Prompt], ...]


async def begin(connection: Connection, user_id: UUID, chatroom_id: UUID) -> Begun | None:
    """The room as it is now; both statements see the same."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        room = await connection.fetchrow(
            """
            SELECT r.id, r.name, r.created_at, r.updated_at, now() AS exported_at, r.last_sequence, coalesce((
                SELECT m.position FROM chatrooms_messages m WHERE m.chatroom_id = r.id ORDER BY m.position DESC LIMIT 1
            ), -1) AS last_position
            FROM chatrooms_metadata r WHERE r.id = $2 AND r.user_id = $1
            """,
            user_id,
            chatroom_id,
        )
        if room is None:
            return None
        unfinished = await connection.fetch(
            f"""
            {store.PROMPT}
            WHERE p.chatroom_id = $2 AND p.user_id = $1 AND p.status IN ('queued', 'running') ORDER BY p.sequence
            """,
            user_id,
            chatroom_id,
        )
    return Begun(
        chatroom=Chatroom(
            id=room["id"], name=room["name"], created_at=room["created_at"], updated_at=room["updated_at"]
        ),
        exported_at=room["exported_at"],
        last_sequence=room["last_sequence"],
        last_position=room["last_position"],
        unfinished=tuple((row["sequence"], store.prompt_of(row)) for row in unfinished),
    )


async def messages(
    connection: Connection, user_id: UUID, begun: Begun, after: int, limit: int
) -> list[tuple[int, Message]]:
    """Up to `limit` messages with their positions, oldest first, behind position `after` and not behind the last."""
    page, _ = await store.page(connection, user_id, begun.chatroom.id, after, limit)
    return [(position, message) for position, message in page if position <= begun.last_position]


async def ended_unanswered(
    connection: Connection, user_id: UUID, begun: Begun, after: int, limit: int
) -> tuple[list[tuple[int, Prompt]], bool]:
    """Up to `limit` prompts with their sequences that had failed or been cancelled, oldest first, behind `after`; and
    whether there are more.

    One of the unfinished may have ended in a transaction that is older than the export and was committed later.
    """
    rows = await connection.fetch(
        store.page_of(
            f"""
            {store.PROMPT}
            WHERE p.chatroom_id = $3 AND p.user_id = $2 AND p.status IN ('failed', 'cancelled') AND p.finished_at <= $4
              AND p.sequence > $5 AND p.sequence <= $6 AND p.id <> ALL ($7::uuid[])
            ORDER BY p.sequence
            """,
            key="sequence",
            size="octet_length(prompt)",
        ),
        limit,
        user_id,
        begun.chatroom.id,
        begun.exported_at,
        after,
        begun.last_sequence,
        [prompt.id for _, prompt in begun.unfinished],
    )
    return [(row["sequence"], store.prompt_of(row)) for row in rows], store.more_behind(rows)
