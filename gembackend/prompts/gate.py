"""How many calls to Gemini may begin, as far as what earlier ones say goes: the adaptive limit and the breaker."""

from collections.abc import Callable
from time import monotonic

from gembackend.plumbing import metrics
from gembackend.prompts.breaker import Breaker
from gembackend.prompts.limit import AdaptiveLimit
from gembackend.prompts.outcome import Health


class Gate:
    """Both as one: asked together, and both learn how every call went. `clock` gives seconds and only goes forward."""

    def __init__(self, limit: AdaptiveLimit, breaker: Breaker, clock: Callable[[], float] = monotonic) -> None:
        self._limit = limit
        self._breaker = breaker
        self._clock = clock

    def free(self, in_flight: int) -> int:
        """How many calls may begin beside those in flight; less than 0 when there are too many of them already."""
        return min(self._limit.value - in_flight, self._breaker.allow(self._clock()))

    def started(self) -> None:
        """A call has begun."""
        self._breaker.started(self._clock())

    def record(self, health: Health) -> bool:
        """Learn how a call went; tells whether Gemini as a whole is taken for down, now that this is known."""
        now = self._clock()
        self._limit.record(health, now)
        self._breaker.record(health, now)
        down = self._breaker.state != "closed"
        metrics.CONCURRENCY_LIMIT.set(self._limit.value)
        metrics.BREAKER_OPEN.set(down)
        return down
