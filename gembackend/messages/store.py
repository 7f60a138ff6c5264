"""Reading prompts and messages. Ownership is in every WHERE: what is not the user's does not exist."""

from uuid import UUID

from asyncpg import Record

from gembackend.messages import story as stories
from gembackend.messages.models import Message, Prompt, PromptError, TokenUsage
from gembackend.messages.rules import Regenerable
from gembackend.messages.story import Entry, Place
from gembackend.plumbing.postgres import Connection


def prompts_from(source: str) -> str:
    """A SELECT of the prompts of a table or subquery, each with its reply.

    Replies are looked up prompt by prompt, whatever the planner takes the tables for.
    """
    return f"""
        SELECT p.id, p.chatroom_id, p.sequence, p.fence, p.status, p.content AS prompt, p.attempts,
               p.created_at, p.finished_at,
               p.error_code, p.error_message, p.prompt_tokens, p.reply_tokens,
               m.id AS reply_id, m.content AS reply, m.created_at AS replied_at
        FROM {source} p LEFT JOIN LATERAL (
            SELECT * FROM chatrooms_messages WHERE prompt_id = p.id AND role = 'assistant' OFFSET 0
        ) m ON true
    """  # noqa: S608  # put together of what stands in the stores


PROMPT = prompts_from("prompts")

_ONE = "(SELECT * FROM prompts WHERE id = $2 OFFSET 0)"

_LATEST = """(
    SELECT * FROM prompts WHERE chatroom_id = $2
    AND sequence = (SELECT last_sequence FROM chatrooms_metadata WHERE id = $2 AND user_id = $1)
)"""

_BEHIND = """(
    SELECT * FROM prompts WHERE chatroom_id = $3 AND user_id = $2 AND sequence > $4
    ORDER BY sequence LIMIT $1::integer + 1
)"""

PAGE_BYTES = 1024 * 1024
"""How many bytes of texts a page may have, unless its first row alone has more."""


async def prompt(connection: Connection, user_id: UUID, prompt_id: UUID) -> Prompt | None:
    """One prompt with its reply."""
    row = await connection.fetchrow(prompts_from(_ONE) + "WHERE p.user_id = $1", user_id, prompt_id)
    return prompt_of(row) if row else None


async def latest(connection: Connection, user_id: UUID, chatroom_id: UUID) -> Prompt | None:
    """The newest prompt of a room, with its reply."""
    row = await connection.fetchrow(prompts_from(_LATEST), user_id, chatroom_id)
    return prompt_of(row) if row else None


async def starting_place(connection: Connection, user_id: UUID, chatroom_id: UUID) -> tuple[int, Place] | None:
    """The sequence of the room's newest prompt (0: none yet) and where a new listener begins; None: no such room."""
    row = await connection.fetchrow(
        """
        WITH unfinished AS (
            SELECT min(sequence) AS head FROM prompts WHERE chatroom_id = $2 AND status IN ('queued', 'running')
        )
        SELECT r.last_sequence, unfinished.head, ARRAY (
            SELECT p.sequence FROM prompts p
            WHERE p.chatroom_id = r.id AND p.sequence > unfinished.head AND p.status NOT IN ('queued', 'running')
        ) AS early
        FROM chatrooms_metadata r, unfinished WHERE r.id = $2 AND r.user_id = $1
        """,
        user_id,
        chatroom_id,
    )
    return (row["last_sequence"], stories.starting_place(*row)) if row else None


async def story(
    connection: Connection, user_id: UUID, chatroom_id: UUID, behind: int, limit: int
) -> tuple[list[Entry], bool]:
    """Up to `limit` prompts of a room behind a sequence, in the order of the room, and whether there are more."""
    rows = await connection.fetch(
        page_of(
            prompts_from(_BEHIND) + "ORDER BY p.sequence",
            key="sequence",
            size="octet_length(prompt) + coalesce(octet_length(reply), 0)",
        ),
        limit,
        user_id,
        chatroom_id,
        behind,
    )
    return [Entry(row["sequence"], row["fence"], prompt_of(row)) for row in rows], more_behind(rows)


async def page(
    connection: Connection, user_id: UUID, chatroom_id: UUID, after: int, limit: int
) -> tuple[list[tuple[int, Message]], bool]:
    """Up to `limit` messages with their positions, oldest first, behind a position, and whether there are more."""
    rows = await connection.fetch(
        page_of(
            """
            SELECT m.position, m.id, m.role, m.content, m.created_at, m.prompt_id
            FROM chatrooms_messages m JOIN chatrooms_metadata r ON r.id = m.chatroom_id
            WHERE r.id = $3 AND r.user_id = $2 AND m.position > $4 ORDER BY m.position
            """,
            key="position",
            size="octet_length(content)",
        ),
        limit,
        user_id,
        chatroom_id,
        after,
    )
    return [(row["position"], message_of(row)) for row in rows], more_behind(rows)


def page_of(select: str, *, key: str, size: str) -> str:
    """The statement that reads a page of what `select` finds in the order of `key`: at most $1 rows, and PAGE_BYTES.

    `size` is a row's bytes. It costs nothing to ask for, as PostgreSQL knows a text's length without reading it; so
    what the page leaves out is neither read nor sent.
    """
    return f"""
        WITH found AS ({select} LIMIT $1::integer + 1)
        SELECT * FROM (
            SELECT found.*, row_number() OVER so_far AS number, sum({size}) OVER so_far AS bytes,
                   count(*) OVER () AS numbered
            FROM found WINDOW so_far AS (ORDER BY {key})
        ) counted WHERE number = 1 OR (number <= $1 AND bytes <= {PAGE_BYTES}) ORDER BY {key}
    """  # noqa: S608  # put together of what stands in the stores


def more_behind(rows: list[Record]) -> bool:
    """Whether there are more rows behind those that `page_of` gave."""
    return bool(rows) and rows[0]["numbered"] > len(rows)


async def to_regenerate(connection: Connection, user_id: UUID, prompt_id: UUID, key: str | None) -> Regenerable | None:
    """What has to be known of a prompt to ask it once more under an Idempotency-Key."""
    row = await connection.fetchrow(
        """
        SELECT p.chatroom_id, p.content, coalesce(p.regenerates, p.id) AS root, p.finished_at IS NOT NULL AS finished,
               NOT EXISTS (
                   SELECT FROM prompts later WHERE later.chatroom_id = p.chatroom_id AND later.sequence > p.sequence
                   AND later.finished_at IS NOT NULL
               ) AS latest,
               EXISTS (
                   SELECT FROM prompts kept WHERE kept.user_id = $1 AND kept.idempotency_key = $3
                   AND kept.created_at > now() - interval '24 hours'
               ) AS key_known
        FROM prompts p WHERE p.id = $2 AND p.user_id = $1
        """,
        user_id,
        prompt_id,
        key,
    )
    return Regenerable(**row) if row else None


def message_of(row: Record) -> Message:
    """A message of a row that has its columns, and maybe more."""
    return Message(
        id=row["id"],
        role=row["role"],
        content=row["content"],
        created_at=row["created_at"],
        prompt_id=row["prompt_id"],
    )


def prompt_of(row: Record) -> Prompt:
    """A prompt of a row that `PROMPT` selects."""
    reply = error = usage = None
    if row["reply_id"] is not None:
        reply = Message(
            id=row["reply_id"],
            role="assistant",
            content=row["reply"],
            created_at=row["replied_at"],
            prompt_id=row["id"],
        )
        usage = TokenUsage(prompt_tokens=row["prompt_tokens"], reply_tokens=row["reply_tokens"])
    if row["error_code"] is not None:
        error = PromptError(code=row["error_code"], message=row["error_message"])
    return Prompt(
        id=row["id"],
        chatroom_id=row["chatroom_id"],
        status=row["status"],
        prompt=row["prompt"],
        attempts=row["attempts"],
        created_at=row["created_at"],
        finished_at=row["finished_at"],
        error=error,
        reply=reply,
        usage=usage,
    )
