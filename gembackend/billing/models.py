"""What clients get about subscriptions, and what Stripe sends about events."""

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct

EventId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_]{1,255}\Z")]
EventType = Annotated[str, Meta(pattern=r"^[a-z0-9_.]{1,255}\Z")]


class CheckoutStarted(Struct, frozen=True, kw_only=True):
    """A Checkout session of Stripe: `url` is where the person pays."""

    url: str
    session_id: str


class Portal(Struct, frozen=True, kw_only=True):
    """A session of Stripe's customer portal: `url` is where the person manages the subscription."""

    url: str


class SubscriptionStatus(Struct, frozen=True, kw_only=True):
    """The tier, and the subscription behind it; `status` is Stripe's word, null when there has never been one.

    A subscription whose payment is not collected, or of which none is bought (quantity 0), keeps its status at Stripe,
    and the tier is Basic.
    """

    subscription_tier: str
    status: str | None
    current_period_end: datetime | None
    cancel_at_period_end: bool


class Received(Struct, frozen=True):
    """Tells Stripe that an event has been stored."""

    received: bool


class AnyEvent(Struct, frozen=True):
    """What tells one kind of event from another, whatever else it has: `object` is its kind."""

    object: Any = None
    type: Any = None


class EventObject(Struct, frozen=True):
    """What an event is about; `customer` is an id, or a whole customer."""

    object: str | None = None
    id: str | None = None
    customer: Any = None


class EventData(Struct, frozen=True):
    """The part of an event that holds its object."""

    object: EventObject


class StripeEvent(Struct, frozen=True):
    """An event as Stripe sends it, as far as it is read. `created` is in seconds since 1970."""

    id: EventId
    type: EventType
    created: Annotated[int, Meta(ge=0, le=253_402_300_799)]
    data: EventData
