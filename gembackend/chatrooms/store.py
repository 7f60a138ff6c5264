"""The SQL of chatrooms. Ownership is in every WHERE: what is not the user's does not exist."""

from uuid import UUID

from gembackend.chatrooms.models import Chatroom, ChatroomDetail, MessageCounts
from gembackend.plumbing.postgres import Connection
from gembackend.quota import store as quota
from gembackend.users import removal_store as removal
from gembackend.users.removal_store import Room


async def create(connection: Connection, user_id: UUID, chatroom_id: UUID, name: str) -> Chatroom | None:
    """Make a room; None when the user has just been deleted, which is waited for if it is going on."""
    row = await connection.fetchrow(
        """
        INSERT INTO chatrooms_metadata (id, user_id, name)
        SELECT $1, id, $3 FROM users WHERE id = $2 FOR KEY SHARE
        RETURNING id, name, created_at, updated_at
        """,
        chatroom_id,
        user_id,
        name,
    )
    return Chatroom(**row) if row else None


async def page(connection: Connection, user_id: UUID, before: UUID | None, limit: int) -> list[Chatroom]:
    """Up to `limit` rooms, newest first, older than the room `before`."""
    rows = await connection.fetch(
        """
        SELECT id, name, created_at, updated_at FROM chatrooms_metadata
        WHERE user_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3
        """,
        user_id,
        before,
        limit,
    )
    return [Chatroom(**row) for row in rows]


async def detail(connection: Connection, user_id: UUID, chatroom_id: UUID) -> ChatroomDetail | None:
    """One room with its counts."""
    row = await connection.fetchrow(
        """
        SELECT r.id, r.name, r.created_at, r.updated_at, m.user_messages, m.assistant_messages, m.last_message_at,
               (SELECT count(*) FROM prompts p
                WHERE p.chatroom_id = r.id AND p.status IN ('queued', 'running')) AS pending_prompts
        FROM chatrooms_metadata r, LATERAL (
            SELECT count(*) FILTER (WHERE role = 'user') AS user_messages,
                   count(*) FILTER (WHERE role = 'assistant') AS assistant_messages,
                   max(created_at) AS last_message_at
            FROM chatrooms_messages WHERE chatroom_id = r.id
        ) m
        WHERE r.id = $2 AND r.user_id = $1
        """,
        user_id,
        chatroom_id,
    )
    if row is None:
        return None
    return ChatroomDetail(
        id=row["id"],
        name=row["name"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        message_counts=MessageCounts(user=row["user_messages"], assistant=row["assistant_messages"]),
        pending_prompts=row["pending_prompts"],
        last_message_at=row["last_message_at"],
    )


async def rename(connection: Connection, user_id: UUID, chatroom_id: UUID, name: str) -> Chatroom | None:
    """Give a room another name."""
    row = await connection.fetchrow(
        """
        UPDATE chatrooms_metadata SET name = $3, updated_at = now() WHERE id = $2 AND user_id = $1
        RETURNING id, name, created_at, updated_at
        """,
        user_id,
        chatroom_id,
        name,
    )
    return Chatroom(**row) if row else None


async def delete(connection: Connection, user_id: UUID, chatroom_id: UUID) -> list[UUID] | None:
    """Remove a room with its prompts and messages; tells which prompts had not finished, or None if there is no room.

    To be called inside a transaction. What has finished goes first, which may take long. Prompts that never began are
    refunded once the room is locked, so that it takes no more of them.
    """
    theirs = "SELECT id, last_sequence FROM chatrooms_metadata WHERE id = $2 AND user_id = $1"
    found = await connection.fetchrow(theirs, user_id, chatroom_id)
    if found is None:
        return None
    await removal.clear(connection, [Room(*found)])
    if await connection.fetchrow(f"{theirs} FOR NO KEY UPDATE", user_id, chatroom_id) is None:
        return None
    dropped = await quota.give_back(connection, [chatroom_id])
    await connection.execute("DELETE FROM chatrooms_metadata WHERE id = $1", chatroom_id)
    return dropped


async def exists(connection: Connection, user_id: UUID, chatroom_id: UUID) -> bool:
    """Whether the user has this room."""
    return bool(
        await connection.fetchval(
            "SELECT EXISTS (SELECT FROM chatrooms_metadata WHERE id = $2 AND user_id = $1)", user_id, chatroom_id
        )
    )
