"""Stops asking Gemini while it fails for everybody, so that prompts wait in the queue and keep their attempts.

Closed: calls flow. After `THRESHOLD` failures in a row it opens: nothing starts for a pause. Then it is half open: one
call at a time may probe. A probe that fails opens it again for twice as long, up to `PAUSE_CAP`; an answer closes it.
"""

from typing import Literal

from gembackend.prompts.outcome import Health

State = Literal["closed", "open", "half_open"]

THRESHOLD = 5
"""Failures in a row, without any answer between, that mean Gemini as a whole."""

WINDOW = 120.0
"""Seconds after which an earlier failure is forgotten."""

PAUSE = 1.0
"""Seconds of the first pause."""

PAUSE_CAP = 15.0
"""Seconds of the longest pause."""

PROBE_TIME = 60.0
"""Seconds after which a probe that nothing was heard of is taken for lost."""

UNLIMITED = 1_000_000
"""What `allow` says while the breaker is closed: more than anybody has in flight."""


class Breaker:
    """The state, and when the next probe may start. Times are seconds of one clock that only goes forward."""

    def __init__(self, threshold: int = THRESHOLD) -> None:
        self._threshold = threshold
        self._failures = 0
        self._failed_at = float("-inf")
        self._pause = PAUSE
        self.state: State = "closed"
        self.retry_at = float("-inf")

    def allow(self, now: float) -> int:
        """How many calls may start now: any number, one probe, or none until `retry_at`."""
        if self.state == "closed":
            return UNLIMITED
        return 1 if now >= self.retry_at else 0

    def started(self, now: float) -> None:
        """A call has started; while the breaker is not closed it is the probe, and others wait for what it says."""
        if self.state != "closed":
            self.state = "half_open"
            self.retry_at = now + PROBE_TIME

    def record(self, health: Health, now: float) -> None:
        """Learn how a call ended: any reply is `ok`, a cancelled call `neutral`; a 429 shows that Gemini is there."""
        if health in ("ok", "rate_limited"):
            self._close()
        elif health == "down":
            self._fail(now)
        elif self.state == "half_open":
            self.retry_at = now

    def _close(self) -> None:
        self.state = "closed"
        self._failures = 0
        self._pause = PAUSE

    def _fail(self, now: float) -> None:
        if self.state == "half_open":
            self._pause = min(PAUSE_CAP, self._pause * 2.0)
            self._open(now)
        elif self.state == "closed":
            self._failures = self._failures + 1 if now - self._failed_at <= WINDOW else 1
            self._failed_at = now
            if self._failures >= self._threshold:
                self._open(now)

    def _open(self, now: float) -> None:
        self.state = "open"
        self.retry_at = now + self._pause
