"""What the parts of this process have last seen of Redis: whether hints come through."""

from gembackend.plumbing import logs, metrics
from gembackend.plumbing.redis import reason

log = logs.logger(__name__)


class RedisState:
    """Each part that uses Redis says how it went; while one of them is in trouble, hints are not to be relied on.

    `failures` counts every failure, so that one which was over before anybody looked is noticed too.
    """

    def __init__(self) -> None:
        self.failures = 0
        self._troubles: dict[str, str] = {}

    @property
    def trouble(self) -> str | None:
        """What is the matter, for a person; None when all is well."""
        return next(iter(self._troubles.values()), None)

    def failed(self, part: str, error: Exception) -> None:
        """A part could not do with Redis what it had to."""
        self.failures += 1
        text = reason(error)
        if self._troubles.get(part) != text:
            log.warning("redis_unavailable", part=part, reason=text, error=type(error).__name__)
        self._troubles[part] = text
        metrics.HINTS_UNAVAILABLE.set(1)

    def well(self, part: str) -> None:
        """A part could."""
        if self._troubles.pop(part, None) is not None:
            log.info("redis_available", part=part)
            metrics.HINTS_UNAVAILABLE.set(1 if self._troubles else 0)
