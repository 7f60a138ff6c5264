"""The SQL of the prompt engine. PostgreSQL alone decides order, claim, attempts, result and quota."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gembackend.messages.rules import NewPrompt, Verdict
from gembackend.plumbing.postgres import Connection

HISTORY_BYTES = 256 * 1024
"""The most that goes to Gemini with a prompt: as many are in memory at once as a process has in flight, some of them
several times over, and a batch of them is read in one statement."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A prompt this process may work on while its lease lasts, with what came before it in its room.

    `exhausted` says that its attempts were spent already: it is claimed only to be given up. `suspect` says that its
    process died with it before, and more than chance allows: it may be what kills them.
    `history` is (role, text), oldest first. `queue_seconds` is how long it waited since it was accepted, due
    again, or its lease ran out; `traceparent` is the W3C trace context that its attempts continue, if it has one.
    """

    id: UUID
    chatroom_id: UUID
    fence: int
    attempt: int
    exhausted: bool
    taken_over: bool
    suspect: bool
    content: str
    history: tuple[tuple[str, str], ...]
    request_id: str
    created_at: datetime
    traceparent: str | None
    queue_seconds: float


async def accept(
    connection: Connection, prompts: Sequence[NewPrompt], daily_prompts: int, room_limit: int, backlog_room: int
) -> list[Verdict]:
    """Decide a batch of prompts in one transaction, in order; the rules are `accept_prompts` in sql/migrations.

    At most `backlog_room` of them are accepted; the rest hears of a full backlog, unless something else decides it.
    """
    rows = await connection.fetch(
        """
        SELECT outcome, prompt_id, accepted_at
        FROM accept_prompts($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7, $8,
                            $9::text[], $10::uuid[], $11)
        """,
        [prompt.id for prompt in prompts],
        [prompt.user_id for prompt in prompts],
        [prompt.chatroom_id for prompt in prompts],
        [prompt.content for prompt in prompts],
        [prompt.idempotency_key for prompt in prompts],
        [prompt.request_id for prompt in prompts],
        daily_prompts,
        room_limit,
        [prompt.traceparent for prompt in prompts],
        [prompt.regenerates for prompt in prompts],
        backlog_room,
    )
    return [Verdict(row["outcome"], row["prompt_id"], row["accepted_at"]) for row in rows]


async def claim(
    connection: Connection,
    chatroom_ids: Sequence[UUID],
    *,
    lease_seconds: float,
    max_attempts: int,
    history_messages: int,
    suspects: int,
    owner: str,
) -> list[Claimed]:
    """Claim the head of each room that is due, with its history; a room that is busy or empty gives nothing.

    The history of a prompt that regenerates leaves out the exchanges of those that asked the same before. Of long
    messages it has whole exchanges of HISTORY_BYTES together, or else the latest one alone.
    The heads are found without locks and locked afterwards: SKIP LOCKED while searching would skip to a later
    prompt of the same room. Of prompts that are suspected of killing their process (they have outlived two leases,
    or have one attempt left after one) at most `suspects` are claimed.

    The plan does not depend on statistics, which are old when a burst comes: heads are looked up room by room and
    locked by their primary key, one after another, and written to by a list of keys, whatever the planner takes the
    tables for.
    """
    rows = await connection.fetch(
        """
        WITH heads AS MATERIALIZED (
            SELECT head.id
            FROM unnest($1::uuid[]) AS room (id), LATERAL (
                SELECT p.id FROM prompts p
                WHERE p.chatroom_id = room.id AND p.status IN ('queued', 'running')
                ORDER BY p.sequence LIMIT 1
            ) head
        ), due AS MATERIALIZED (
            SELECT p.*, p.attempts >= $3 AS exhausted, p.status = 'running' AS taken_over,
                   p.status = 'running' AND p.attempts < $3 AND (p.takeovers > 0 OR p.attempts + 1 >= $3) AS suspect
            FROM heads, LATERAL (
                SELECT id, status, available_at, lease_until, attempts, takeovers
                FROM prompts WHERE id = heads.id OFFSET 0 FOR UPDATE SKIP LOCKED
            ) p
            WHERE p.available_at <= now()
              AND (p.status = 'queued' OR (p.status = 'running' AND p.lease_until < now()))
        ), chosen AS (
            SELECT * FROM due WHERE NOT suspect
            UNION ALL
            (SELECT * FROM due WHERE suspect ORDER BY lease_until LIMIT $6)
        ), claimed AS (
            UPDATE prompts p
            SET status = 'running', fence = p.fence + 1, attempts = greatest(p.attempts, least(p.attempts + 1, $3)),
                takeovers = p.takeovers + chosen.taken_over::integer,
                lease_until = now() + make_interval(secs => $2), leased_by = $5
            FROM chosen WHERE p.id = ANY (ARRAY (SELECT id FROM chosen)) AND p.id = chosen.id
            RETURNING p.id, p.chatroom_id, p.fence, p.attempts, chosen.exhausted, chosen.taken_over, chosen.suspect,
                      p.content, p.regenerates, p.request_id, p.created_at, p.traceparent,
                      extract(epoch FROM now() - CASE WHEN chosen.taken_over THEN chosen.lease_until
                                                      ELSE p.available_at END)::float8 AS queue_seconds
        )
        SELECT claimed.*, coalesce(recent.history, '{}') AS history
        FROM claimed LEFT JOIN LATERAL (
            SELECT array_agg(ARRAY[role, content] ORDER BY position) AS history FROM (
                SELECT role, content, position, position / 2 = max(position / 2) OVER () AS latest,
                       sum(octet_length(content)) OVER (ORDER BY position / 2 DESC) AS bytes
                FROM (
                    SELECT m.role, m.content, m.position FROM chatrooms_messages m
                    WHERE m.chatroom_id = claimed.chatroom_id
                      AND (claimed.regenerates IS NULL OR claimed.regenerates <> coalesce(
                          (SELECT p.regenerates FROM prompts p WHERE p.id = m.prompt_id), m.prompt_id))
                    ORDER BY m.position DESC LIMIT $4
                ) m
            ) summed WHERE bytes <= $7 OR latest
        ) recent ON true
        """,
        chatroom_ids,
        lease_seconds,
        max_attempts,
        history_messages,
        owner,
        suspects,
        HISTORY_BYTES,
    )
    return [
        Claimed(
            id=row["id"],
            chatroom_id=row["chatroom_id"],
            fence=row["fence"],
            attempt=row["attempts"],
            exhausted=row["exhausted"],
            taken_over=row["taken_over"],
            suspect=row["suspect"],
            content=row["content"],
            history=tuple((role, text) for role, text in row["history"]),
            request_id=row["request_id"],
            created_at=row["created_at"],
            traceparent=row["traceparent"],
            queue_seconds=row["queue_seconds"],
        )
        for row in rows
    ]


async def extend_leases(connection: Connection, held: Sequence[tuple[UUID, int]], lease_seconds: float) -> set[UUID]:
    """Extend the leases of these (id, fence) pairs; an id that does not come back belongs to someone else now."""
    rows = await connection.fetch(
        """
        WITH mine AS MATERIALIZED (
            SELECT p.id
            FROM (SELECT * FROM unnest($1::uuid[], $2::bigint[]) AS t (id, fence) ORDER BY id) held, LATERAL (
                SELECT id, fence, status FROM prompts WHERE id = held.id OFFSET 0 FOR UPDATE
            ) p
            WHERE p.fence = held.fence AND p.status = 'running'
        )
        UPDATE prompts p SET lease_until = now() + make_interval(secs => $3)
        WHERE p.id = ANY (ARRAY (SELECT id FROM mine))
        RETURNING p.id
        """,
        [prompt_id for prompt_id, _ in held],
        [fence for _, fence in held],
        lease_seconds,
    )
    return {row["id"] for row in rows}


async def rooms_with_due_heads(connection: Connection, chatroom_ids: Sequence[UUID]) -> list[UUID]:
    """Those of the rooms whose head could be claimed now."""
    rows = await connection.fetch(
        """
        SELECT room.id FROM unnest($1::uuid[]) AS room (id), LATERAL (
            SELECT p.status, p.available_at, p.lease_until FROM prompts p
            WHERE p.chatroom_id = room.id AND p.status IN ('queued', 'running') ORDER BY p.sequence LIMIT 1
        ) head
        WHERE head.available_at <= now() AND (head.status = 'queued' OR head.lease_until < now())
        """,
        chatroom_ids,
    )
    return [row["id"] for row in rows]
