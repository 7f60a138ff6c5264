"""The SQL of syncs: leases on customers, and the one place where what Stripe says is written.

A sync claims its customer, fetches, and writes. Every claim raises the customer's fence, and a write with an older
fence changes nothing, so what was fetched later always wins. The lease only keeps two processes from doing the same
work. All but the last belong into a transaction, and lock in the order user, customer, events: deleting a user
does so too, and an event that arrives meanwhile waits for its customer and then asks for another sync.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gembackend.billing.rules import Entitlement, Subscription
from gembackend.billing.store import subscription
from gembackend.plumbing.postgres import Connection, affected

LEASE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Claim:
    """A customer that is being synced here. `event_ids` are the pending events that this sync will have covered.

    `user_id` is None when the user is deleted, so that the customer is to be closed.
    """

    customer_id: str
    user_id: UUID | None
    checkout_session_id: str | None
    fence: int
    failures: int
    reconciling: bool
    gone: bool
    claimed_at: datetime
    event_ids: tuple[str, ...]


async def claim_due(connection: Connection, most: int) -> list[Claim]:
    """Claim up to `most` customers that are due and leased to nobody; those due for their age alone come last."""
    rows = await connection.fetch(
        """
        SELECT id FROM billing_customers
        WHERE (sync_at IS NOT NULL OR lease_until IS NOT NULL OR user_id IS NULL)
          AND (sync_at <= now() OR lease_until < now() OR (user_id IS NULL AND sync_at IS NULL))
          AND coalesce(lease_until < now(), true)
        ORDER BY reconciling, sync_at NULLS FIRST LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
        """,
        most,
    )
    return await _claim(connection, [row["id"] for row in rows])


async def claim(connection: Connection, user_id: UUID, customer_id: str) -> Claim | None:
    """Claim a user's customer on the spot, whoever has it; None when it is not this user's any more."""
    found = await connection.fetchval(
        "SELECT id FROM billing_customers WHERE id = $2 AND user_id = $1 FOR NO KEY UPDATE", user_id, customer_id
    )
    claims = await _claim(connection, [found] if found else [])
    return claims[0] if claims else None


async def _claim(connection: Connection, customer_ids: Sequence[str]) -> list[Claim]:
    """Claim customers that are locked already, so that their pending events can be read without missing one."""
    if not customer_ids:
        return []
    rows = await connection.fetch(
        """
        WITH was AS (SELECT id, reconciling FROM billing_customers WHERE id = ANY ($1::text[]))
        UPDATE billing_customers c
        SET fence = c.fence + 1, lease_until = now() + make_interval(secs => $2), sync_at = NULL, reconciling = false
        FROM was WHERE c.id = was.id
        RETURNING c.id AS customer_id, c.user_id, c.checkout_session_id, c.fence, c.failures, was.reconciling,
                  c.gone_at IS NOT NULL AS gone, now() AS claimed_at,
                  array(SELECT e.id FROM billing_events e WHERE e.customer_id = c.id AND e.status = 'pending')
                      AS event_ids
        """,
        customer_ids,
        LEASE_SECONDS,
    )
    return [Claim(**{**row, "event_ids": tuple(row["event_ids"])}) for row in rows]


async def lock_user(connection: Connection, user_id: UUID | None) -> None:
    """Lock the user before the customer."""
    await connection.execute("SELECT FROM users WHERE id = $1 FOR NO KEY UPDATE", user_id)


async def synced(connection: Connection, claim: Claim) -> datetime | None:
    """Note that what follows is the state of a fetch that began at the claim; the time, None after a later claim."""
    now: datetime | None = await connection.fetchval(
        """
        UPDATE billing_customers SET lease_until = NULL, failures = 0, synced_at = $3 WHERE id = $1 AND fence = $2
        RETURNING now()
        """,
        claim.customer_id,
        claim.fence,
        claim.claimed_at,
    )
    return now


async def write_subscriptions(
    connection: Connection, customer_id: str, fetched: Sequence[Subscription]
) -> tuple[bool, list[Subscription]]:
    """Make the customer's subscriptions these; tells whether anything changed, and what is stored now."""
    stored = await connection.execute(
        """
        INSERT INTO billing_subscriptions AS s
            (id, customer_id, status, price_ids, idle_price_ids, current_period_end, cancel_at, created_at,
             past_due_since)
        SELECT id, $1, status, string_to_array(price_ids, ','), string_to_array(idle_price_ids, ','), period_end,
               cancel_at, created_at, CASE WHEN status = 'past_due' THEN now() END
        FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[],
                    $8::timestamptz[])
            AS fetched (id, status, price_ids, idle_price_ids, period_end, cancel_at, created_at)
        ON CONFLICT (id) DO UPDATE
            SET status = excluded.status, price_ids = excluded.price_ids, idle_price_ids = excluded.idle_price_ids,
                cancel_at = excluded.cancel_at, current_period_end = excluded.current_period_end,
                past_due_since = CASE WHEN excluded.status = 'past_due' THEN coalesce(s.past_due_since, now()) END
            WHERE (s.status, s.price_ids, s.idle_price_ids, s.current_period_end, s.cancel_at) IS DISTINCT FROM
                (excluded.status, excluded.price_ids, excluded.idle_price_ids, excluded.current_period_end,
                 excluded.cancel_at)
        """,
        customer_id,
        [each.id for each in fetched],
        [each.status for each in fetched],
        [",".join(each.price_ids) for each in fetched],
        [",".join(each.idle_price_ids) for each in fetched],
        [each.current_period_end for each in fetched],
        [each.cancel_at for each in fetched],
        [each.created_at for each in fetched],
    )
    removed = await connection.execute(
        "DELETE FROM billing_subscriptions WHERE customer_id = $1 AND id <> ALL ($2::text[])",
        customer_id,
        [each.id for each in fetched],
    )
    rows = await connection.fetch(
        """
        SELECT id, status, price_ids, idle_price_ids, current_period_end, cancel_at, created_at, past_due_since
        FROM billing_subscriptions WHERE customer_id = $1
        """,
        customer_id,
    )
    return affected(stored) + affected(removed) > 0, [subscription(row) for row in rows]


async def write_tier(connection: Connection, user_id: UUID | None, entitled: Entitlement) -> None:
    """Make this the user's tier."""
    await connection.execute(
        """
        UPDATE users SET subscription_tier = $2, pro_until = $3
        WHERE id = $1 AND (subscription_tier, pro_until) IS DISTINCT FROM ($2, $3)
        """,
        user_id,
        entitled.tier,
        entitled.until,
    )


async def retire(connection: Connection, customer_id: str) -> None:
    """Note that Stripe has this customer no more; nothing of its subscriptions stays."""
    await connection.execute("UPDATE billing_customers SET gone_at = now(), sync_at = NULL WHERE id = $1", customer_id)
    await connection.execute("DELETE FROM billing_subscriptions WHERE customer_id = $1", customer_id)


async def forget(connection: Connection, claim: Claim) -> bool:
    """Remove the customer of a deleted user; False when a later claim exists."""
    status = await connection.execute(
        "DELETE FROM billing_customers WHERE id = $1 AND fence = $2 AND user_id IS NULL", claim.customer_id, claim.fence
    )
    return affected(status) == 1


async def processed(connection: Connection, claim: Claim, *, also_later: bool = False) -> int:
    """Note that the events of this sync have had their effect; tells how many.

    `also_later` includes those that came after the claim: nothing can follow from them.
    """
    status = await connection.execute(
        """
        UPDATE billing_events SET status = 'processed', finished_at = now(), error_code = NULL
        WHERE customer_id = $1 AND status = 'pending' AND ($3 OR id = ANY ($2::text[]))
        """,
        claim.customer_id,
        claim.event_ids,
        also_later,
    )
    return affected(status)


async def postpone(connection: Connection, claim: Claim, wait_seconds: float) -> bool:
    """End the lease of a sync that failed, to try again after a while; False when a later claim exists."""
    status = await connection.execute(
        """
        UPDATE billing_customers
        SET lease_until = NULL, failures = failures + 1, reconciling = reconciling OR $4,
            sync_at = now() + make_interval(secs => $3)
        WHERE id = $1 AND fence = $2
        """,
        claim.customer_id,
        claim.fence,
        wait_seconds,
        claim.reconciling,
    )
    return affected(status) == 1


async def count_attempt(connection: Connection, claim: Claim, error_code: str, most: int) -> int:
    """Count a failure that lasts against its events and park those with too many; tells how many were parked.

    A customer for whom nothing is pending any more is not tried again.
    """
    rows = await connection.fetch(
        """
        UPDATE billing_events
        SET attempts = attempts + 1, error_code = $2,
            status = CASE WHEN attempts + 1 >= $3 THEN 'parked' ELSE 'pending' END,
            finished_at = CASE WHEN attempts + 1 >= $3 THEN now() END
        WHERE id = ANY ($1::text[]) AND status = 'pending'
        RETURNING status
        """,
        claim.event_ids,
        error_code,
        most,
    )
    await connection.execute(
        """
        UPDATE billing_customers SET sync_at = NULL, failures = 0
        WHERE id = $1 AND NOT EXISTS (SELECT FROM billing_events WHERE customer_id = $1 AND status = 'pending')
        """,
        claim.customer_id,
    )
    return sum(row["status"] == "parked" for row in rows)


async def release(connection: Connection, claims: Sequence[Claim]) -> None:
    """Give back customers whose syncs were broken off; another process may have them at once."""
    await connection.execute(
        """
        UPDATE billing_customers c SET lease_until = NULL, sync_at = least(c.sync_at, now())
        FROM unnest($1::text[], $2::bigint[]) AS held (id, fence) WHERE c.id = held.id AND c.fence = held.fence
        """,
        [claim.customer_id for claim in claims],
        [claim.fence for claim in claims],
    )
