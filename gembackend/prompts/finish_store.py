"""The SQL of storing what attempts ended in."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from gembackend.plumbing.postgres import Connection


@dataclass(frozen=True, slots=True)
class Ending:
    """What to store of a claimed prompt: an answer, a failure, or another turn in the queue.

    `delay` is the seconds until a queued prompt may be claimed again; `attempts_back` gives attempts back. A failure
    with `counted` may stay charged, and then this is its message.
    """

    id: UUID
    fence: int
    status: str
    error_code: str | None = None
    error_message: str | None = None
    response_id: str | None = None
    reply: str | None = None
    prompt_tokens: int | None = None
    reply_tokens: int | None = None
    delay: float = 0.0
    attempts_back: int = 0
    counted: str | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """Which prompts were changed, and which were not because somebody else has locked a row; the others are stale."""

    changed: set[UUID]
    locked: set[UUID]


async def finish(connection: Connection, endings: Sequence[Ending], forgiven: int) -> Finished:
    """Store a batch of endings in one statement: status, messages and refunds together.

    Of one whose fence is stale nothing is stored, nor of one whose prompt, room or user somebody else has locked: it is
    not waited for, so that a lock holds up nobody else's answer. Rows are locked in the order of the prompts' ids, as
    `extend_leases` does, so that nobody waits in a circle.

    A failure gives the unit back to the day that it was charged to. Of those with `counted`, which their prompts may
    have brought about, a Basic user gets `forgiven` of a day back; the others stay charged, and say so.
    """
    rows = await connection.fetch(
        """
        WITH ended AS (
            SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                                 $8::integer[], $9::integer[], $10::float8[], $11::integer[], $12::text[])
                AS t (id, fence, status, error_code, error_message, response_id, reply,
                      prompt_tokens, reply_tokens, delay, attempts_back, counted)
        ), wanted AS MATERIALIZED (
            SELECT p.id, p.fence, p.chatroom_id, p.user_id, e.status, e.counted
            FROM ended e, LATERAL (
                SELECT id, fence, status, chatroom_id, user_id FROM prompts WHERE id = e.id OFFSET 0
            ) p
            WHERE p.fence = e.fence AND p.status = 'running'
        ), mine AS MATERIALIZED (
            SELECT p.id, p.user_id, p.charged_on, w.status, w.counted IS NOT NULL AS provoked
            FROM (SELECT * FROM wanted ORDER BY id) w, LATERAL (
                SELECT id, fence, status, user_id, charged_on FROM prompts
                WHERE id = w.id OFFSET 0 FOR UPDATE SKIP LOCKED
            ) p, LATERAL (
                SELECT FROM chatrooms_metadata WHERE id = w.chatroom_id OFFSET 0 FOR KEY SHARE SKIP LOCKED
            ) room, LATERAL (
                SELECT FROM users WHERE id = w.user_id OFFSET 0 FOR KEY SHARE SKIP LOCKED
            ) owner
            WHERE p.fence = w.fence AND p.status = 'running'
        ), charged AS MATERIALIZED (
            SELECT id, user_id, charged_on AS day, provoked,
                   row_number() OVER (PARTITION BY user_id, charged_on, provoked ORDER BY id) AS place
            FROM mine WHERE status = 'failed' AND charged_on IS NOT NULL
        ), held AS MATERIALIZED (
            SELECT u.user_id, u.day, u.forgiven, owner.tier = 'Basic' AS bounded
            FROM (SELECT DISTINCT user_id, day FROM charged ORDER BY user_id, day) c, LATERAL (
                SELECT user_id, day, forgiven FROM prompt_usage
                WHERE user_id = c.user_id AND day = c.day OFFSET 0 FOR UPDATE
            ) u, LATERAL (
                SELECT current_tier(subscription_tier, pro_until) AS tier FROM users WHERE id = c.user_id OFFSET 0
            ) owner
        ), refunds AS MATERIALIZED (
            SELECT c.id, c.user_id, c.day, c.provoked AND h.bounded AS forgiven
            FROM charged c JOIN held h ON h.user_id = c.user_id AND h.day = c.day
            WHERE NOT (c.provoked AND h.bounded) OR h.forgiven + c.place <= $13
        ), decided AS MATERIALIZED (
            SELECT e.*, r.id IS NOT NULL AS refunded, m.charged_on IS NOT NULL AND r.id IS NULL AS stays_charged
            FROM mine m JOIN ended e ON e.id = m.id LEFT JOIN refunds r ON r.id = m.id
        ), changed AS (
            UPDATE prompts p
            SET status = d.status, error_code = d.error_code,
                error_message = CASE WHEN d.stays_charged THEN coalesce(d.counted, d.error_message)
                                     ELSE d.error_message END,
                prompt_tokens = d.prompt_tokens, reply_tokens = d.reply_tokens,
                attempts = p.attempts - d.attempts_back, lease_until = NULL, leased_by = NULL,
                available_at = CASE WHEN d.status = 'queued' THEN now() + make_interval(secs => d.delay)
                                    ELSE p.available_at END,
                finished_at = CASE WHEN d.status <> 'queued' THEN now() END,
                charged_on = CASE WHEN d.refunded THEN NULL ELSE p.charged_on END
            FROM decided d WHERE p.id = ANY (ARRAY (SELECT id FROM decided)) AND p.id = d.id
            RETURNING p.id, p.user_id, p.chatroom_id, p.sequence, p.content, p.created_at,
                      d.status, d.response_id, d.reply
        ), messages AS (
            INSERT INTO chatrooms_messages (id, user_id, chatroom_id, prompt_id, position, role, content, created_at)
            SELECT c.response_id || side.suffix, c.user_id, c.chatroom_id, c.id, 2 * c.sequence + side.place, side.role,
                   side.content, side.created_at
            FROM changed c, LATERAL (VALUES
                ('_U', 0, 'user', c.content, c.created_at), ('_A', 1, 'assistant', c.reply, now())
            ) side (suffix, place, role, content, created_at)
            WHERE c.status = 'answered'
        ), refunded AS (
            UPDATE prompt_usage u SET used = u.used - r.units, forgiven = u.forgiven + r.forgiven
            FROM (
                SELECT user_id, day, count(*)::integer AS units, count(*) FILTER (WHERE forgiven)::integer AS forgiven
                FROM refunds GROUP BY user_id, day
            ) r
            WHERE r.user_id = u.user_id AND r.day = u.day
        )
        SELECT id, id IN (SELECT id FROM changed) AS changed FROM wanted
        """,
        [ending.id for ending in endings],
        [ending.fence for ending in endings],
        [ending.status for ending in endings],
        [ending.error_code for ending in endings],
        [ending.error_message for ending in endings],
        [ending.response_id for ending in endings],
        [ending.reply for ending in endings],
        [ending.prompt_tokens for ending in endings],
        [ending.reply_tokens for ending in endings],
        [ending.delay for ending in endings],
        [ending.attempts_back for ending in endings],
        [ending.counted for ending in endings],
        forgiven,
    )
    return Finished(
        changed={row["id"] for row in rows if row["changed"]}, locked={row["id"] for row in rows if not row["changed"]}
    )
