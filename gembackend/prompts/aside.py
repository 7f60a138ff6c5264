"""Endings that are put aside for a while, because a row of theirs is locked or takes too long to store."""

from dataclasses import dataclass
from uuid import UUID

from gembackend.plumbing import logs, metrics
from gembackend.prompts.pool import Ended
from gembackend.prompts.storing import Delay

log = logs.logger(__name__)

FIRST_SECONDS = 0.05
LONGEST_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    ended: Ended
    why: Delay
    due: float


class Aside:
    """What waits to be tried again, longer after each time. Times are seconds of a clock that only goes forward."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, _Waiting] = {}
        self._tries: dict[UUID, int] = {}

    def put(self, ended: Ended, why: Delay, now: float) -> None:
        """Put one aside."""
        prompt_id = ended.run.claimed.id
        tries = self._tries[prompt_id] = self._tries.get(prompt_id, 0) + 1
        if tries == 1:
            log.warning("ending_put_aside", prompt_id=str(prompt_id), why=why)
        self._waiting[prompt_id] = _Waiting(
            ended, why, now + min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(tries, 16))
        )
        self._count()

    def seconds_left(self, now: float) -> float | None:
        """Seconds until one of them is due, 0 when one is; None when there is none."""
        first = min((waiting.due for waiting in self._waiting.values()), default=None)
        return None if first is None else max(0.0, first - now)

    def take(self, now: float) -> list[Ended]:
        """Those that are due, or one alone if it is one that takes too long."""
        due = [waiting for waiting in self._waiting.values() if waiting.due <= now]
        alone = [waiting for waiting in due if waiting.why == "slow"][:1]
        taken = [waiting.ended for waiting in alone or due]
        for ended in taken:
            del self._waiting[ended.run.claimed.id]
        self._count()
        return taken

    def done(self, prompt_id: UUID) -> None:
        """This one has been stored, or is stale."""
        self._tries.pop(prompt_id, None)

    def _count(self) -> None:
        metrics.ENDINGS_ASIDE.set(len(self._waiting))
