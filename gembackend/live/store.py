"""The SQL of what waiters and listeners wait for."""

from collections.abc import Sequence
from uuid import UUID

from gembackend.plumbing.postgres import Connection


async def finished_among(connection: Connection, prompt_ids: Sequence[UUID]) -> list[UUID]:
    """Those of the prompts that nothing more will happen to; one that is not accepted yet is none of them."""
    rows = await connection.fetch(
        """
        SELECT id FROM prompts WHERE id = ANY ($1::uuid[]) AND status NOT IN ('queued', 'running')
        """,
        prompt_ids,
    )
    return [row["id"] for row in rows]


async def room_states(connection: Connection, chatroom_ids: Sequence[UUID]) -> dict[UUID, tuple[int, ...]]:
    """For each of the rooms that exist, numbers of which one is another after any change of its prompts."""
    rows = await connection.fetch(
        """
        SELECT r.id, r.last_sequence, unfinished.count, unfinished.fences
        FROM chatrooms_metadata r, LATERAL (
            SELECT count(*) AS count, coalesce(sum(p.fence + (p.status = 'running')::integer), 0)::bigint AS fences
            FROM prompts p WHERE p.chatroom_id = r.id AND p.status IN ('queued', 'running')
        ) unfinished
        WHERE r.id = ANY ($1::uuid[])
        """,
        chatroom_ids,
    )
    return {row["id"]: (row["last_sequence"], row["count"], row["fences"]) for row in rows}
