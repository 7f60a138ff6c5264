"""Chatrooms with many messages, put into the database without asking Gemini for each."""

import asyncpg


async def fill(db: asyncpg.Connection, room: str, messages: int, letters: int) -> None:
    """Put messages of so many letters into a room, and a cancelled prompt after each hundred."""
    await db.execute(
        """
        INSERT INTO prompts (id, user_id, chatroom_id, sequence, content, status, request_id, finished_at)
        SELECT gen_random_uuid(), r.user_id, r.id, nr, 'prompt ' || nr,
               CASE WHEN nr % 51 = 0 THEN 'cancelled' ELSE 'answered' END, 'test', now()
        FROM chatrooms_metadata r, generate_series(1, $2 / 2 * 51 / 50) nr WHERE r.id = $1
        """,
        room,
        messages,
    )
    await db.execute("UPDATE chatrooms_metadata SET last_sequence = $2 / 2 * 51 / 50 WHERE id = $1", room, messages)
    await db.execute(
        """
        INSERT INTO chatrooms_messages (id, chatroom_id, prompt_id, position, role, content, created_at)
        SELECT id || side.suffix, chatroom_id, id, 2 * sequence + side.place, side.role, repeat('x', $2), created_at
        FROM prompts, (VALUES ('_U', 0, 'user'), ('_A', 1, 'assistant')) side (suffix, place, role)
        WHERE status = 'answered' AND chatroom_id = $1
        """,
        room,
        letters,
    )
