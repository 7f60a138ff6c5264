"""Stores what attempts ended in, many in one commit, and moves each room on to its next prompt."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic, time, time_ns
from uuid import UUID

from gembackend.actors import Actor, Mailbox
from gembackend.live.feed import Feed
from gembackend.live.waiters import Waiters
from gembackend.plumbing import logs, metrics
from gembackend.plumbing.faults import Fault
from gembackend.prompts import spans
from gembackend.prompts.admission import Admission
from gembackend.prompts.aside import Aside
from gembackend.prompts.claims import Claims
from gembackend.prompts.endings import ending_of
from gembackend.prompts.finish_store import Ending
from gembackend.prompts.outcome import Retry
from gembackend.prompts.pool import Ended, Run, WorkerPool
from gembackend.prompts.storing import Storing
from gembackend.prompts.writer import Done, Finished, StreamWriter, Wake

log = logs.logger(__name__)

BATCH = 64


class Committer(Actor):
    """Takes whatever ended during its last commit and stores it in one statement.

    Then, in a new statement that sees what was accepted meanwhile, it claims the next prompt of each room, and
    acknowledges the hints of rooms that have none. While the database is away it holds on to what it has; one whose
    rows are locked, or that takes too long, is put aside and holds up nobody else.
    """

    def __init__(
        self,
        storing: Storing,
        endings: Mailbox[Ended],
        claims: Claims,
        pool: WorkerPool,
        writer: StreamWriter,
        waiters: Waiters,
        feed: Feed,
        admission: Admission,
    ) -> None:
        super().__init__("committer")
        self._storing = storing
        self._aside = Aside()
        self._endings = endings
        self._claims = claims
        self._pool = pool
        self._writer = writer
        self._waiters = waiters
        self._feed = feed
        self._admission = admission

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
            await self._move_on(batch, list(endings.values()))

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
        finished: list[UUID] = []
        for ended, wanted in endings.items():
            claimed, stale, ending = ended.run.claimed, wanted.id not in stored, stored.get(wanted.id, wanted)
            with spans.committing(claimed, ended.run.span, ending, begun=begun, batch=len(endings), stale=stale):
                if stale:
                    metrics.STALE_WRITES.inc()
                    log.warning("stale_write", prompt_id=str(ending.id), fence=ending.fence)
                elif ending.status == "queued":
                    metrics.PROMPTS_RETRIED.labels(_why_again(ended)).inc()
                else:
                    finished.append(ending.id)
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
        self._feed.changed(ended.run.claimed.chatroom_id for ended in endings if ended.run.claimed.id in stored)
        if finished:
            self._admission.finished(len(finished))
            self._waiters.finished(finished)
            self._writer.tell(Finished(tuple(finished)))

    async def _move_on(self, batch: Sequence[Ended], endings: Sequence[Ending]) -> None:
        """Give each room its next prompt, or its hints back."""
        delays = {ending.id: ending.delay for ending in endings if ending.status == "queued"}
        runs = {ended.run.claimed.chatroom_id: ended.run for ended in batch if not ended.run.lost}
        ready = [room for room, run in runs.items() if run.claimed.id not in delays]
        keep = self._pool.turns(len(ready))
        try:
            claimed = await self._claims.claim(ready[:keep], suspects=0)
            waiting = await self._claims.due(ready[keep:])
        except Fault:
            claimed, waiting = [], ready
        if self._pool.stopping.is_set():
            # The drain began during the claim: nothing is begun any more.
            await self._storing.store([ending_of(prompt, None) for prompt in claimed])
            waiting, claimed = waiting + [prompt.chatroom_id for prompt in claimed], []
        for ended in batch:
            self._pool.release(ended.run)
            if runs.get(ended.run.claimed.chatroom_id) is not ended.run:
                # It was lost, or another prompt of its room has ended in this batch too and goes on with its own hints.
                self._let_go(ended.run)
        for prompt in claimed:
            self._pool.begin(prompt, runs.pop(prompt.chatroom_id).entry_ids)
        for room in waiting:
            self._writer.tell(Wake(room, "turn"))
        for run in runs.values():
            self._let_go(run)
            if run.claimed.id in delays:
                self._writer.tell_later(delays[run.claimed.id], Wake(run.claimed.chatroom_id, "retry"))

    def _let_go(self, run: Run) -> None:
        """Acknowledge the hints that a run came from."""
        if run.entry_ids:
            self._writer.tell(Done(run.entry_ids))


def _why_again(ended: Ended) -> str:
    """Why a prompt gets another turn: the code of its retry, or that a drain put it back."""
    outcome = ended.result.outcome if ended.result else None
    return outcome.code if isinstance(outcome, Retry) else "put_back"
