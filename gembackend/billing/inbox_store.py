"""The SQL of the inbox of events, and of what no event told."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gembackend.plumbing.postgres import Connection, affected


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """An event whose sync failed too often, for a reason that lasts."""

    id: str
    type: str
    customer_id: str
    error_code: str
    attempts: int
    created_at: datetime
    finished_at: datetime


async def receive(
    connection: Connection, event_id: str, kind: str, customer_id: str | None, created_at: datetime, *, relevant: bool
) -> str | None:
    """Store an event once, and ask for a sync if it matters: "pending", "ignored", or None if it is known already.

    An event matters if it is relevant and about a customer of ours. Waiting for a retry is not cut short by it.
    """
    stored: str | None = await connection.fetchval(
        """
        WITH ours AS (
            SELECT id FROM billing_customers WHERE id = $3 AND gone_at IS NULL AND $5 FOR NO KEY UPDATE
        ), stored AS (
            INSERT INTO billing_events (id, type, customer_id, created_at, status, finished_at)
            SELECT $1, $2, $3, $4, CASE WHEN count(ours) > 0 THEN 'pending' ELSE 'ignored' END,
                   CASE WHEN count(ours) = 0 THEN now() END
            FROM ours
            ON CONFLICT (id) DO NOTHING
            RETURNING status
        ), asked AS (
            UPDATE billing_customers
            SET sync_at = CASE WHEN failures = 0 THEN least(sync_at, now()) ELSE coalesce(sync_at, now()) END,
                reconciling = false
            WHERE id = $3 AND EXISTS (SELECT FROM stored WHERE status = 'pending')
        )
        SELECT status FROM stored
        """,
        event_id,
        kind,
        customer_id,
        created_at,
        relevant,
    )
    return stored


async def oldest_pending_seconds(connection: Connection) -> float:
    """How long the oldest event that has had no effect yet has been here; 0 when there is none."""
    seconds = await connection.fetchval(
        """
        SELECT coalesce(extract(epoch FROM now() - min(received_at)), 0)::float8
        FROM billing_events WHERE status = 'pending'
        """
    )
    return float(seconds)


async def ask_for_stale(connection: Connection, stale_after: timedelta, most: int) -> int:
    """Ask for a sync of up to `most` customers of whom too little is known; tells of how many.

    That is: a live subscription not looked at for so long, or not since its period or its grace was over, and a
    checkout of the last two days not looked at for an hour.
    """
    status = await connection.execute(
        """
        UPDATE billing_customers SET sync_at = now(), reconciling = true
        WHERE id IN (
            SELECT c.id FROM billing_customers c LEFT JOIN billing_subscriptions s ON s.customer_id = c.id
            WHERE c.user_id IS NOT NULL AND c.gone_at IS NULL AND c.sync_at IS NULL AND c.lease_until IS NULL
              AND CASE
                  WHEN s.status NOT IN ('canceled', 'incomplete_expired') THEN
                      c.synced_at < now() - $1::interval
                      OR (least(s.current_period_end, s.cancel_at) < now()
                          AND c.synced_at < least(s.current_period_end, s.cancel_at))
                  ELSE c.checkout_session_id IS NOT NULL AND c.synced_at BETWEEN now() - interval '2 days'
                      AND now() - interval '1 hour'
              END
            ORDER BY c.id LIMIT $2 FOR NO KEY UPDATE OF c SKIP LOCKED
        )
        """,
        stale_after,
        most,
    )
    return affected(status)


async def remove_old(connection: Connection, kept: timedelta, most: int) -> int:
    """Remove up to `most` events that had their effect, or never had one, so long ago; tells how many."""
    status = await connection.execute(
        """
        DELETE FROM billing_events WHERE id IN (
            SELECT id FROM billing_events
            WHERE status IN ('processed', 'ignored') AND finished_at < now() - $1::interval LIMIT $2
        )
        """,
        kept,
        most,
    )
    return affected(status)


async def parked(connection: Connection, most: int) -> list[ParkedEvent]:
    """Up to `most` parked events, newest first."""
    rows = await connection.fetch(
        """
        SELECT id, type, customer_id, error_code, attempts, created_at, finished_at
        FROM billing_events WHERE status = 'parked' ORDER BY finished_at DESC LIMIT $1
        """,
        most,
    )
    return [ParkedEvent(**row) for row in rows]


async def replay(connection: Connection, event_ids: Sequence[str] | None) -> list[str]:
    """Make these parked events (None: all of them) pending again and their customers due; tells which.

    An event whose customer is gone or closed has nothing left to tell.
    """
    rows = await connection.fetch(
        """
        WITH ours AS (
            SELECT id FROM billing_customers
            WHERE id IN (SELECT customer_id FROM billing_events
                         WHERE status = 'parked' AND ($1::text[] IS NULL OR id = ANY ($1)))
            ORDER BY id FOR NO KEY UPDATE
        ), asked AS (
            UPDATE billing_customers SET sync_at = now(), failures = 0 WHERE id IN (SELECT id FROM ours)
        )
        UPDATE billing_events e
        SET attempts = 0, error_code = NULL, status = CASE WHEN ours.id IS NULL THEN 'ignored' ELSE 'pending' END,
            finished_at = CASE WHEN ours.id IS NULL THEN now() END
        FROM billing_events p LEFT JOIN ours ON ours.id = p.customer_id
        WHERE e.id = p.id AND p.status = 'parked' AND ($1::text[] IS NULL OR p.id = ANY ($1))
        RETURNING e.id
        """,
        event_ids,
    )
    return [row["id"] for row in rows]
