"""The SQL of the search."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gembackend.messages.models import FoundMessage
from gembackend.plumbing.postgres import Connection

_MERGING = 7304612205398233
"""The advisory lock of whoever merges."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a message stands in what a search finds, which is in the order of these."""

    created_at: datetime
    prompt_id: UUID
    position: int


@dataclass(frozen=True, slots=True)
class Found:
    """Messages, newest first, and from where to go on if there may be more."""

    messages: list[FoundMessage]
    next: Place | None


async def search(connection: Connection, user_id: UUID, text: str, before: Place | None, limit: int) -> Found:
    """Up to `limit` of the user's messages that a text asks for; the rules are `search_messages` in sql/migrations."""
    rows = await connection.fetch(
        "SELECT * FROM search_messages($1, $2, $3, $4, $5, $6)",
        user_id,
        text,
        before and before.created_at,
        before and before.prompt_id,
        before and before.position,
        limit + 1,
    )
    found = [row for row in rows if row["matches"]]
    messages = [
        FoundMessage(
            id=row["id"],
            role=row["role"],
            content=row["content"],
            created_at=row["created_at"],
            prompt_id=row["prompt_id"],
            chatroom_id=row["chatroom_id"],
        )
        for row in found[:limit]
    ]
    if len(found) > limit:
        last = found[limit - 1]
    elif len(found) < len(rows):
        last = rows[-1]
    else:
        return Found(messages, None)
    return Found(messages, Place(last["created_at"], last["prompt_id"], last["position"]))


async def merge(connection: Connection) -> int:
    """Merge the index's list of new entries into it, unless somebody else does just now; how many pages that was.

    A role that does not own the index may not; then autovacuum does it, or whoever writes when the list is full.
    """
    pages = await connection.fetchval(
        """
        SELECT CASE WHEN pg_has_role(relowner, 'USAGE') AND pg_try_advisory_xact_lock($1)
                    THEN gin_clean_pending_list(oid::regclass) END
        FROM pg_class WHERE oid = to_regclass('chatrooms_messages_search')
        """,
        _MERGING,
    )
    return pages or 0
