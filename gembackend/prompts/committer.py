"""Stores what attempts ended in, many in one commit, and moves each room on to its next prompt."""

import asyncio
from collections.abc import Sequence
from time import monotonic, time, time_ns
from uuid import UUID

import asyncpg

from gembackend.actors import Actor, Mailbox
from gembackend.plumbing import logs, metrics
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database
from gembackend.prompts import spans, store
from gembackend.prompts.admission import Admission
from gembackend.prompts.claims import Claims
from gembackend.prompts.endings import ending_of, unstorable
from gembackend.prompts.feed import Feed
from gembackend.prompts.live import Live
from gembackend.prompts.outcome import Retry
from gembackend.prompts.pool import Ended, Run, WorkerPool
from gembackend.prompts.store import Ending
from gembackend.prompts.writer import Done, Finished, StreamWriter, Wake

log = logs.logger(__name__)

BATCH = 64
PAUSE_SECONDS = 0.25


class Committer(Actor):
    """Takes whatever ended during its last commit and stores it in one statement.

    Then, in a new statement that sees what was accepted meanwhile, it claims the next prompt of each room, and
    acknowledges the hints of rooms that have none. While the database is away it holds on to what it has.
    """

    def __init__(
        self,
        database: Database,
        endings: Mailbox[Ended],
        claims: Claims,
        pool: WorkerPool,
        writer: StreamWriter,
        live: Live,
        feed: Feed,
        admission: Admission,
        *,
        forgiven: int,
    ) -> None:
        super().__init__("committer")
        self._database = database
        self._endings = endings
        self._claims = claims
        self._pool = pool
        self._writer = writer
        self._live = live
        self._feed = feed
        self._admission = admission
        self._forgiven = forgiven

    def wind_down(self) -> None:
        """Store what has been reported, then end."""
        self._endings.close()

    async def run(self) -> None:
        """Commit in batches until closed and empty."""
        while batch := await self._endings.drain(BATCH):
            mine = [ended for ended in batch if not ended.run.lost]
            endings = [ending_of(ended.run.claimed, ended.result) for ended in mine]
            begun = time_ns()
            stored = await self._store(endings)
            self._report(mine, endings, stored, begun)
            await self._move_on(batch, endings)

    async def _store(self, endings: Sequence[Ending]) -> dict[UUID, Ending]:
        """Store endings until it is done; tells what was stored of each prompt whose fence was not stale.

        A row that PostgreSQL refuses is singled out and does not stop the rest.
        """
        while endings:
            begun = monotonic()
            try:
                async with self._database.connection() as connection:
                    changed = await store.finish(connection, endings, self._forgiven)
            except Fault as fault:
                log.warning("commit_waits", count=len(endings), fault=fault.code.name)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            except (asyncpg.PostgresError, ValueError) as error:
                if len(endings) > 1:
                    middle = len(endings) // 2
                    return await self._store(endings[:middle]) | await self._store(endings[middle:])
                log.warning("ending_refused", prompt_id=str(endings[0].id), error=type(error).__name__)
                substitute = unstorable(endings[0], taken=isinstance(error, asyncpg.UniqueViolationError))
                if substitute is None:
                    return {}
                endings = [substitute]
                continue
            metrics.COMMIT_SECONDS.observe(monotonic() - begun)
            metrics.COMMIT_BATCH.observe(len(endings))
            return {ending.id: ending for ending in endings if ending.id in changed}
        return {}

    def _report(
        self, batch: Sequence[Ended], endings: Sequence[Ending], stored: dict[UUID, Ending], begun: int
    ) -> None:
        """Count and log what was stored since `begun` (ns since 1970), and tell whoever waits for it."""
        finished: list[UUID] = []
        for ended, wanted in zip(batch, endings, strict=True):
            claimed, stale, ending = ended.run.claimed, wanted.id not in stored, stored.get(wanted.id, wanted)
            with spans.committing(claimed, ended.run.span, ending, begun=begun, batch=len(batch), stale=stale):
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
        self._feed.changed(ended.run.claimed.chatroom_id for ended in batch if ended.run.claimed.id in stored)
        if finished:
            self._admission.finished(len(finished))
            self._live.finished(finished)
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
            await self._store([ending_of(prompt, None) for prompt in claimed])
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
