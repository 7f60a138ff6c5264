"""Stores what attempts ended in, many in one commit."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic, time, time_ns
from uuid import UUID

from gembackend.actors import Actor, Mailbox
from gembackend.plumbing import logs, metrics
from gembackend.prompts import spans
from gembackend.prompts.announcer import Announcer
from gembackend.prompts.aside import Aside
from gembackend.prompts.endings import ending_of
from gembackend.prompts.finish_store import Ending
from gembackend.prompts.outcome import Retry
from gembackend.prompts.pool import Ended
from gembackend.prompts.storing import Storing
from gembackend.prompts.turns import Turns

log = logs.logger(__name__)

BATCH = 64


class Committer(Actor):
    """Takes whatever ended during its last commit and stores it in one statement.

    Then everybody hears of it, and each room gets its turn. While the database is away it holds on to what it has; one
    whose rows are locked, or that takes too long, is put aside and holds up nobody else.
    """

    def __init__(self, endings: Mailbox[Ended], storing: Storing, announcer: Announcer, turns: Turns) -> None:
        super().__init__("committer")
        self._endings = endings
        self._aside = Aside()
        self._storing = storing
        self._announcer = announcer
        self._turns = turns

    def wind_down(self) -> None:
        """Store what has been reported, then end."""
        self._endings.close()

    async def run(self) -> None:
        """Commit in batches until closed and empty."""
        while batch := await self._next():
            endings = {ended: ending_of(ended.run.claimed, ended.result) for ended in batch if not ended.run.lost}
            begun = time_ns()
            stored = await self._storing.store(list(endings.values()))
            for ended, ending in list(endings.items()):
                if why := stored.delayed.get(ending.id):
                    self._aside.put(ended, why, monotonic())
                    batch.remove(ended)
                    del endings[ended]
                else:
                    self._aside.done(ending.id)
            self._report(endings, stored.changed, begun)
            await self._turns.move_on(batch, list(endings.values()))

    async def _next(self) -> list[Ended]:
        """What has ended, or else what was put aside and is due; empty at the end."""
        while (wait := self._aside.seconds_left(monotonic())) is not None:
            if self._endings.closed and not len(self._endings):
                await asyncio.sleep(wait)
            elif wait > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        return await self._endings.drain(BATCH)
            if due := self._aside.take(monotonic()):
                return due
        return await self._endings.drain(BATCH)

    def _report(self, endings: Mapping[Ended, Ending], stored: Mapping[UUID, Ending], begun: int) -> None:
        """Count and log what was stored since `begun` (ns since 1970), and tell whoever waits for it."""
        again: list[UUID] = []
        finished: dict[UUID, UUID] = {}
        for ended, wanted in endings.items():
            claimed, stale, ending = ended.run.claimed, wanted.id not in stored, stored.get(wanted.id, wanted)
            with spans.committing(claimed, ended.run.span, ending, begun=begun, batch=len(endings), stale=stale):
                if stale:
                    metrics.STALE_WRITES.inc()
                    log.warning("stale_write", prompt_id=str(ending.id), fence=ending.fence)
                elif ending.status == "queued":
                    again.append(claimed.chatroom_id)
                    metrics.PROMPTS_RETRIED.labels(_why_again(ended)).inc()
                else:
                    finished[ending.id] = claimed.chatroom_id
                    seconds = time() - claimed.created_at.timestamp()
                    metrics.PROMPTS_FINISHED.labels(ending.status, ending.error_code or "").inc()
                    metrics.PROMPTS_SECONDS.observe(seconds)
                    log.info(
                        "prompt_finished",
                        prompt_id=str(ending.id),
                        request_id=claimed.request_id,
                        outcome=ending.status,
                        error_code=ending.error_code,
                        attempts=claimed.attempt,
                        seconds=round(seconds, 4),
                    )
        self._announcer.changed(again)
        self._announcer.ended(list(finished.values()), list(finished))


def _why_again(ended: Ended) -> str:
    """Why a prompt gets another turn: the code of its retry, or that a drain put it back."""
    outcome = ended.result.outcome if ended.result else None
    return outcome.code if isinstance(outcome, Retry) else "put_back"
