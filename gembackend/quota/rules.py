"""The UTC day of the quota."""

from datetime import UTC, datetime, timedelta
from math import ceil


def resets_at(now: datetime) -> datetime:
    """The next UTC midnight after `now`."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def seconds_until_reset(now: datetime) -> int:
    """Whole seconds to the next UTC midnight, at least 1."""
    return max(1, ceil((resets_at(now) - now).total_seconds()))
