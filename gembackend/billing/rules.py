"""What the state at Stripe means here: the tier, the signature of a webhook, and when to try again."""

import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

Tier = Literal["Basic", "Pro"]

RENEWAL_ALLOWANCE = timedelta(days=3)
"""How long a period that should have been renewed still counts: Stripe sends events for three days."""
TOLERANCE_SECONDS = 300
"""How far the time of a signature may be from ours, before or after."""
MOST_ATTEMPTS = 5
"""An event whose sync has failed so often, for a reason that lasts, is parked."""
LONGEST_WAIT_SECONDS = 60.0

RELEVANT_TYPES = (
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "customer.subscription.resumed",
    "invoice.paid",
    "invoice.payment_failed",
    "invoice.payment_action_required",
    "customer.deleted",
)
"""The events that say that a customer's subscriptions have changed."""

_LIVE = ("active", "trialing", "past_due", "unpaid", "paused")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class Plan:
    """What makes Pro: our prices, the first of which is sold, and how long Pro outlives a payment that failed."""

    price_ids: tuple[str, ...]
    grace: timedelta

    def covers(self, subscription: "Subscription") -> bool:
        """Whether a subscription is to one of our prices."""
        return not set(self.price_ids).isdisjoint(subscription.price_ids)

    def entitles(self, subscription: "Subscription") -> bool:
        """Whether a subscription has one of our prices in force."""
        return not set(self.price_ids).isdisjoint(set(subscription.price_ids) - set(subscription.idle_price_ids))


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription as Stripe has it; `cancel_at` is when it ends, if it has been cancelled.

    `past_due_since` is our own memory: when it was first seen to be past due. `idle_price_ids` are those of its prices
    that entitle to nothing: none of it is bought (quantity 0), or payment is not collected (`pause_collection`).
    Stripe leaves the status as it is then, and the service to us; here what is not paid for is not given, whatever
    becomes of the invoices meanwhile. https://docs.stripe.com/billing/subscriptions/pause-payment
    """

    id: str
    status: str
    price_ids: tuple[str, ...]
    current_period_end: datetime | None
    cancel_at: datetime | None
    created_at: datetime
    past_due_since: datetime | None = None
    idle_price_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entitlement:
    """The tier that somebody is entitled to, and when it ends by itself; None: it does not."""

    tier: Tier
    until: datetime | None


def entitlement(subscriptions: Iterable[Subscription], plan: Plan, now: datetime) -> Entitlement:
    """What all the subscriptions of a customer together entitle to: the one that lasts longest counts."""
    ends = [end for subscription in subscriptions if (end := _pro_until(subscription, plan, now)) and end > now]
    return Entitlement("Pro", max(ends)) if ends else Entitlement("Basic", None)


def _pro_until(subscription: Subscription, plan: Plan, now: datetime) -> datetime | None:
    """When this subscription alone stops making its customer Pro; None: it does not make anybody Pro."""
    if not plan.entitles(subscription):
        return None
    match subscription.status:
        case "trialing" | "active":
            return subscription.cancel_at or (subscription.current_period_end or now) + RENEWAL_ALLOWANCE
        case "past_due":
            grace_ends = (subscription.past_due_since or now) + plan.grace
            return min(grace_ends, subscription.cancel_at or grace_ends)
        case _:
            return None


def live(subscriptions: Iterable[Subscription], plan: Plan) -> list[Subscription]:
    """Those of our price that may be charged for, also later, so that another one would be charged for twice."""
    return [each for each in subscriptions if each.status in _LIVE and plan.covers(each)]


def foremost(subscriptions: Iterable[Subscription], plan: Plan) -> Subscription | None:
    """The one of our price to show: the best of the live ones, or else the newest."""
    ours = [each for each in subscriptions if plan.covers(each)]
    rank = {status: -place for place, status in enumerate(_LIVE)}
    return max(ours, key=lambda each: (rank.get(each.status, -len(_LIVE)), each.created_at), default=None)


def customer_of(kind: str | None, object_id: str | None, customer: object) -> str | None:
    """The id of the customer that an event's object is or belongs to; `customer` may be an id or a whole customer."""
    found: object = customer.get("id") if isinstance(customer, dict) else customer
    if kind == "customer":
        found = object_id
    return found if isinstance(found, str) and re.fullmatch(r"[A-Za-z0-9_]{1,255}", found) else None


def printable(word: object) -> str | None:
    """A type of event fit for a log; None when it is not one."""
    return word if isinstance(word, str) and re.fullmatch(r"[a-z0-9_.\[\]]{1,255}", word) else None


def signed(raw: bytes, header: str, secrets: Sequence[str], now: float) -> bool:
    """Whether a `Stripe-Signature` header signs these bytes with any of the secrets, at a time near `now`.

    https://docs.stripe.com/webhooks#verify-manually; unlike there, times in the future have the same bound.
    """
    pairs = [pair.strip().partition("=") for pair in header.split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    if len(times) != 1 or not _TIMESTAMP.fullmatch(times[0]) or abs(now - int(times[0])) > TOLERANCE_SECONDS:
        return False
    content = times[0].encode() + b"." + raw
    given = [value.encode(errors="replace") for name, _, value in pairs if name == "v1"]
    expected = [hmac.digest(secret.encode(errors="replace"), content, "sha256").hex().encode() for secret in secrets]
    return any(hmac.compare_digest(one, other) for one in expected for other in given)


def retry_seconds(failures: int) -> float:
    """How long to wait after so many failures in a row."""
    return min(LONGEST_WAIT_SECONDS, 2.0 ** min(failures, 10) / 2)


def at(seconds: int) -> datetime:
    """A time of Stripe's (seconds since 1970) as a time."""
    return datetime.fromtimestamp(seconds, UTC)
