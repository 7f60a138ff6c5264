"""What the parts of this process have last seen of Redis: whether hints come through."""

from gembackend.plumbing import logs, metrics
from gembackend.plumbing.outages import Outages
from gembackend.plumbing.redis import reason

log = logs.logger(__name__)


class RedisState:
    """Each part that uses Redis says how it went; while one of them is in trouble, hints are not to be relied on.

    `failures` counts every failure, so that one which was over before anybody looked is noticed too.
    """

    def __init__(self) -> None:
        self.failures = 0
        self._outages = Outages()

    @property
    def trouble(self) -> str | None:
        """What is the matter, for a person; None when all is well."""
        return self._outages.reason

    def failed(self, part: str, error: Exception) -> None:
        """A part could not do with Redis what it had to."""
        self.failures += 1
        text = reason(error)
        if self._outages.failed(text, part):
            log.warning("redis_unavailable", part=part, reason=text, error=type(error).__name__)
        metrics.HINTS_UNAVAILABLE.set(1)

    def well(self, part: str) -> None:
        """A part could."""
        if self._outages.works(part):
            log.info("redis_available", part=part)
            metrics.HINTS_UNAVAILABLE.set(1 if self.trouble else 0)
