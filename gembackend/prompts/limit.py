"""How many calls to Gemini may be in flight: less when it says 429, one more a round while it answers.

Additive increase, multiplicative decrease, as in TCP (RFC 5681): a limit that many processes share without talking.
"""

from gembackend.prompts.outcome import Health

CUT = 0.5
"""What is left of the limit after a rate-limited call."""

COOL_OFF = 0.5
"""Seconds after a cut in which further 429s are of the same burst and cut no more; Gemini says 429 at once."""


class AdaptiveLimit:
    """The number of calls that may be in flight, between 1 and `ceiling`, where it begins."""

    def __init__(self, ceiling: int) -> None:
        self._ceiling = float(ceiling)
        self._current = float(ceiling)
        self._cut_at = float("-inf")

    @property
    def value(self) -> int:
        """How many calls may be in flight now."""
        return int(self._current)

    def record(self, health: Health, now: float) -> None:
        """Learn how a call ended at `now`, in seconds of a clock that only goes forward.

        As many answers as there may be calls in flight raise the limit by one.
        """
        if health == "rate_limited" and now - self._cut_at >= COOL_OFF:
            self._current = max(1.0, self._current * CUT)
            self._cut_at = now
        elif health == "ok":
            self._current = min(self._ceiling, self._current + 1.0 / self._current)
