"""The SQL of customers and of what is known of their subscriptions."""

from dataclasses import dataclass
from uuid import UUID

from asyncpg import Record

from gembackend.billing.rules import Subscription
from gembackend.plumbing.postgres import Connection, affected


@dataclass(frozen=True, slots=True)
class Customer:
    """A user's customer at Stripe; `gone` when Stripe has it no more."""

    id: str
    checkout_session_id: str | None
    gone: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """A user's tier at this moment, and the subscriptions that are known."""

    tier: str
    subscriptions: list[Subscription]


@dataclass(frozen=True, slots=True)
class Returned:
    """Somebody who comes back from Checkout; `due` when nobody did so a moment ago."""

    customer_id: str
    user_id: UUID
    due: bool


async def customer_of_user(connection: Connection, user_id: UUID) -> Customer | None:
    """The customer of a user."""
    row = await connection.fetchrow(
        "SELECT id, checkout_session_id, gone_at IS NOT NULL AS gone FROM billing_customers WHERE user_id = $1",
        user_id,
    )
    return Customer(**row) if row else None


async def keep_customer(connection: Connection, user_id: UUID, customer_id: str) -> None:
    """Store the customer made for a user, or in the place of one that is gone; one stored meanwhile stays."""
    await connection.execute(
        """
        INSERT INTO billing_customers AS c (id, user_id) SELECT $2, id FROM users WHERE id = $1 FOR KEY SHARE
        ON CONFLICT (user_id) DO UPDATE
            SET id = excluded.id, gone_at = NULL, checkout_session_id = NULL, returned_at = NULL, sync_at = NULL,
                failures = 0, fence = c.fence + 1, lease_until = NULL, synced_at = NULL
            WHERE c.gone_at IS NOT NULL
        """,
        user_id,
        customer_id,
    )


async def keep_checkout(connection: Connection, user_id: UUID, customer: Customer, session_id: str) -> bool:
    """Store a customer's newest Checkout session, after the one that `customer` has.

    False when another one has been stored meanwhile, or the customer is not this user's any more.
    """
    status = await connection.execute(
        """
        UPDATE billing_customers SET checkout_session_id = $4, returned_at = NULL
        WHERE id = $2 AND user_id = $1
          AND (checkout_session_id IS NOT DISTINCT FROM $3 OR checkout_session_id = $4)
        """,
        user_id,
        customer.id,
        customer.checkout_session_id,
        session_id,
    )
    return affected(status) == 1


async def come_back(connection: Connection, session_id: str, pause_seconds: float) -> Returned | None:
    """Whose Checkout session this is, and whether it is worth a sync; None when it is no customer's newest."""
    row = await connection.fetchrow(
        """
        WITH found AS (
            SELECT id, user_id, coalesce(returned_at < now() - make_interval(secs => $2), true) AS due
            FROM billing_customers
            WHERE checkout_session_id = $1 AND user_id IS NOT NULL AND gone_at IS NULL FOR NO KEY UPDATE
        ), marked AS (
            UPDATE billing_customers c SET returned_at = now() FROM found WHERE c.id = found.id AND found.due
        )
        SELECT id AS customer_id, user_id, due FROM found
        """,
        session_id,
        pause_seconds,
    )
    return Returned(**row) if row else None


async def standing(connection: Connection, user_id: UUID) -> Standing | None:
    """A user's tier and subscriptions; None when there is no such user."""
    tier = await connection.fetchval(
        "SELECT current_tier(subscription_tier, pro_until) FROM users WHERE id = $1", user_id
    )
    if tier is None:
        return None
    rows = await connection.fetch(
        """
        SELECT s.id, s.status, s.price_ids, s.current_period_end, s.cancel_at, s.created_at, s.past_due_since,
               s.idle_price_ids
        FROM billing_subscriptions s JOIN billing_customers c ON c.id = s.customer_id
        WHERE c.user_id = $1
        """,
        user_id,
    )
    return Standing(tier, [subscription(row) for row in rows])


def subscription(row: Record) -> Subscription:
    """A subscription out of its row."""
    lists = {name: tuple(row[name]) for name in ("price_ids", "idle_price_ids")}
    return Subscription(**{**row, **lists})
