"""How many calls to Gemini may be in flight: less when it says 429, one more a round while it answers.

Additive increase, multiplicative decrease, as in TCP (RFC 5681): a limit that many processes share without talking.
"""

from gembackend.prompts.outcome import Health

CUT = 0.5
"""What is left of the limit after a rate-limited call."""


class Limit:
    """The number of calls that may be in flight, between 1 and `ceiling`, where it begins. Times are in seconds."""

    def __init__(self, ceiling: int) -> None:
        self._ceiling = float(ceiling)
        self._current = float(ceiling)
        self._cut_at = float("-inf")

    @property
    def value(self) -> int:
        """How many calls may be in flight now."""
        return int(self._current)

    def record(self, health: Health, *, started: float, now: float) -> None:
        """Learn from a call that ran from `started` to `now`.

        A call that was on its way at the last cut says nothing about the limit since, so that a burst of 429s cuts
        once. As many answers as there are calls in flight raise the limit by one.
        """
        if health == "rate_limited" and started > self._cut_at:
            self._current = max(1.0, self._current * CUT)
            self._cut_at = now
        elif health == "ok":
            self._current = min(self._ceiling, self._current + 1.0 / self._current)
