"""The UTC day of the quota, and how much of it comes back."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from math import ceil
from uuid import UUID

LEAST_FORGIVEN = 5
"""How many failures of a day are given back at the least, however small the daily limit is."""

Dropped = Callable[[Sequence[UUID], Sequence[UUID]], None]
"""Is told of rooms that have been deleted, and of the prompts that were unfinished in them."""


def resets_at(now: datetime) -> datetime:
    """The next UTC midnight after `now`."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def seconds_until_reset(now: datetime) -> int:
    """Whole seconds to the next UTC midnight, at least 1."""
    return max(1, ceil((resets_at(now) - now).total_seconds()))


def forgiven_a_day(daily_prompts: int) -> int:
    """How many failures that a prompt may have brought about are given back to a Basic user on one UTC day.

    Each has cost calls to Gemini, so a user can cause at most so many of them, and the daily limit, on a day.
    """
    return max(LEAST_FORGIVEN, daily_prompts)
