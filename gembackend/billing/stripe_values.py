"""What the door to Stripe hands out, and how it is read out of Stripe's objects."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import stripe

from gembackend.billing.models import StripeEvent
from gembackend.billing.prices import Price
from gembackend.billing.rules import Subscription, at


@dataclass(frozen=True, slots=True)
class CheckoutSession:
    """A Checkout session: `url` is where to pay, while it is open; `success_url` is where people come back to."""

    id: str
    open: bool
    url: str | None
    success_url: str | None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events, newest first; `odd` are those that cannot be read, `after` is where the next page begins, if any."""

    events: tuple[StripeEvent, ...]
    odd: int
    after: str | None


def checkout(session: stripe.checkout.Session) -> CheckoutSession:
    """A Checkout session as we read it."""
    url: str | None = getattr(session, "url", None)
    is_open = session.status == "open" and url is not None
    return CheckoutSession(session.id, is_open, url, getattr(session, "success_url", None))


def subscription(found: stripe.Subscription) -> Subscription:
    """A subscription as we read it. Since 2025-03-31.basil the period belongs to the items."""
    items = found.items.data
    period_end = max((each.current_period_end for each in items), default=None)
    cancel_at = found.cancel_at or (period_end if found.cancel_at_period_end else None)
    collected = getattr(found, "pause_collection", None) is None
    served = {each.price.id for each in items if collected and getattr(each, "quantity", None) != 0}
    price_ids = tuple(each.price.id for each in items)
    return Subscription(
        id=found.id,
        status=found.status,
        price_ids=price_ids,
        current_period_end=at(period_end) if period_end else None,
        cancel_at=at(cancel_at) if cancel_at else None,
        created_at=at(found.created),
        idle_price_ids=tuple(price_id for price_id in price_ids if price_id not in served),
    )


def event_page(told: Sequence[Any], *, more: bool) -> EventPage:
    """Events as we read them; one that is odd is left out, so that it takes none of the others along."""
    events = []
    for each in told:
        try:
            events.append(msgspec.convert(each, StripeEvent))
        except (msgspec.ValidationError, RecursionError):
            continue
    ids = [each["id"] for each in told if isinstance(each, dict) and isinstance(each.get("id"), str) and each["id"]]
    return EventPage(tuple(events), len(told) - len(events), ids[-1] if more and ids else None)


def price(found: stripe.Price) -> Price:
    """A price as we read it."""
    told: dict[str, Any] = found.to_dict()
    recurring = told.get("recurring") or {}
    amount = told.get("unit_amount_decimal") or told.get("unit_amount")
    return Price(
        id=found.id,
        active=bool(told.get("active")),
        live=bool(told.get("livemode")),
        currency=str(told.get("currency")),
        amount=None if amount is None else Decimal(str(amount)),
        interval=recurring.get("interval"),
        interval_count=recurring.get("interval_count") or 1,
        metered=recurring.get("usage_type") == "metered",
        tiered=told.get("billing_scheme") == "tiered",
        trial_days=recurring.get("trial_period_days") or 0,
    )
