"""What clients send and get about users."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct

from gembackend.plumbing.models import Body

Phone = Annotated[
    str,
    Meta(
        pattern=r"^\+[1-9][0-9]{7,14}$(?!\n)",
        max_length=16,
        description="A phone number in E.164: + and 8 to 15 digits, nothing between them.",
    ),
]
Name = Annotated[str, Meta(min_length=1, max_length=100, description="What the user is called.")]
AnyPassword = Annotated[str, Meta(min_length=1, max_length=128, description="The user's password.")]


class UserChanges(Body, frozen=True):
    """The body that renames a user."""

    name: Name


class Farewell(Body, frozen=True):
    """The body that deletes an account; the password is asked for again."""

    password: AnyPassword


class User(Struct, frozen=True, kw_only=True):
    """A user, as that user sees it."""

    id: UUID
    phone: str
    name: str | None
    subscription_tier: str
    created_at: datetime


class QuotaUsage(Struct, frozen=True, kw_only=True):
    """What is used of today's quota, also by earlier accounts of the phone; `daily_limit` is null without a limit."""

    prompts_today: int
    daily_limit: int | None
    resets_at: datetime


class Me(User, frozen=True, kw_only=True):
    """A user together with today's usage."""

    usage: QuotaUsage
