"""The pool of workers: one coroutine an attempt, as many as Gemini can take at the moment."""

import asyncio
from dataclasses import dataclass, field
from random import random
from time import monotonic
from uuid import UUID

import structlog

from gembackend.actors import Actor, Mailbox
from gembackend.live.feed import Feed
from gembackend.plumbing import logs, metrics
from gembackend.plumbing.traces import NOTHING, Span
from gembackend.plumbing.waiting import within
from gembackend.prompts import attempt, spans
from gembackend.prompts.attempt import Model, Result
from gembackend.prompts.gate import Gate
from gembackend.prompts.outcome import BLOCKS, FINISHES, MESSAGES, STATUSES, Answered, Health, Retry
from gembackend.prompts.store import Claimed
from gembackend.prompts.voice import Voice

log = logs.logger(__name__)

_KNOWN_STATUSES = frozenset({*STATUSES, *FINISHES, *BLOCKS, "EXHAUSTED", "CRASHED"})

FLUSH_SECONDS = 3.0
"""Kept back from the grace period, for what comes after the last attempt: commit and acknowledge."""


@dataclass(eq=False, slots=True)
class Run:
    """A claimed prompt in this process, the hints it came from, and the coroutine at work on it."""

    claimed: Claimed
    entry_ids: tuple[str, ...]
    task: "asyncio.Task[Result | None] | None" = None
    lost: bool = False
    begun: float = field(default_factory=monotonic)
    span: Span = NOTHING


@dataclass(frozen=True, slots=True, eq=False)
class Ended:
    """A run that is over. `result` is None when it was cut off: by a drain, or, if `run.lost`, by a takeover."""

    run: Run
    result: Result | None


class WorkerPool(Actor):
    """Runs attempts and reports each end to the committer's mailbox.

    A slot is taken from the claim until the committer has released it, so what is in flight never exceeds
    the limit; whoever claims for free slots holds `claiming` meanwhile, so that no two count on the same ones. Used by
    the reader, the finder, the committer and the heartbeat on the one event loop; its methods never wait, but for
    `vacancy`.
    """

    def __init__(
        self,
        model: Model,
        endings: Mailbox[Ended],
        feed: Feed,
        gate: Gate,
        *,
        max_attempts: int,
    ) -> None:
        super().__init__("worker-pool")
        self._model = model
        self._endings = endings
        self._feed = feed
        self._gate = gate
        self._max_attempts = max_attempts
        self._runs: dict[UUID, Run] = {}
        self._vacated = asyncio.Event()
        self._drain_until = 0.0
        self.claiming = asyncio.Lock()

    def free(self) -> int:
        """How many more attempts may begin now."""
        if self.stopping.is_set():
            return 0
        return self._gate.free(len(self._runs))

    def turns(self, rooms: int) -> int:
        """How many of so many rooms that have just ended a prompt may go straight on with their next one.

        None while all slots are taken: then rooms go to the stream's tail, so that they take turns.
        """
        if self.free() <= 0:
            return 0
        return min(rooms, self._gate.free(len(self._runs) - rooms))

    def suspects_welcome(self) -> int:
        """How many prompts that may kill this process it may take on: one at a time, so that none dies of another."""
        return 0 if any(run.claimed.suspect for run in self._runs.values()) else 1

    async def vacancy(self, seconds: float) -> int:
        """Wait at most so long until an attempt may begin; tells how many may, 0 if none."""
        self._vacated.clear()
        if (free := self.free()) > 0:
            return free
        await within(self._vacated, seconds)
        return max(0, self.free())

    def begin(self, claimed: Claimed, entry_ids: tuple[str, ...]) -> None:
        """Begin the attempt of a claim; one that this process has taken over from itself ends the earlier attempt."""
        if claimed.taken_over:
            metrics.TAKEOVERS.inc()
            self.abandon(claimed.id)
        run = Run(claimed, entry_ids)
        self._gate.started()
        self._runs[claimed.id] = run
        metrics.PROMPTS_IN_FLIGHT.set(len(self._runs))
        voice = Voice(self._feed, claimed) if self._feed.begin(claimed.chatroom_id, claimed.id, claimed.fence) else None
        run.task = asyncio.create_task(self._traced(run, voice), name=f"attempt-{claimed.id}")
        run.task.add_done_callback(lambda task: self._ended(run, task))

    def release(self, run: Run) -> None:
        """The run's end has been dealt with: its slot is free."""
        if self._runs.get(run.claimed.id) is run:
            del self._runs[run.claimed.id]
        self._feed.hush(run.claimed.chatroom_id, run.claimed.id, run.claimed.fence)
        metrics.PROMPTS_IN_FLIGHT.set(len(self._runs))
        self._vacated.set()

    def held(self) -> list[tuple[UUID, int]]:
        """The (id, fence) of every prompt whose attempt is under way."""
        return [(run.claimed.id, run.claimed.fence) for run in self._runs.values() if not _over(run)]

    def abandon(self, prompt_id: UUID, fence: int | None = None) -> bool:
        """Someone else has this prompt now, or nobody wants it: stop working on it. Tells whether it was worked on.

        With a fence, only the attempt that carries it is meant, and not a later one of the same prompt.
        """
        run = self._runs.get(prompt_id)
        if run is None or run.task is None or run.task.done() or fence not in (None, run.claimed.fence):
            return False
        run.lost = True
        run.task.cancel()
        return True

    async def stop(self, grace: float = 5.0) -> None:
        """Let attempts finish for the grace period less FLUSH_SECONDS, then cut them off."""
        self._drain_until = asyncio.get_running_loop().time() + max(0.0, grace - FLUSH_SECONDS)
        await super().stop(max(0.0, grace))

    async def run(self) -> None:
        """Nothing until the drain: attempts are begun by `begin`."""
        await self.stopping.wait()
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        if not tasks:
            return
        left = max(0.0, self._drain_until - asyncio.get_running_loop().time())
        log.info("draining", in_flight=len(tasks), seconds=round(left, 1))
        _, late = await asyncio.wait(tasks, timeout=left)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        log.info("drained", finished=len(tasks) - len(late), put_back=len(late))

    async def _traced(self, run: Run, voice: Voice | None) -> Result | None:
        with spans.attempting(run.claimed, run.entry_ids) as run.span:
            result = await self._work(run, voice)
            if result is None:
                spans.cut_off(run.span)
            else:
                spans.attempted(run.span, result.outcome, result.status)
            return result

    async def _work(self, run: Run, voice: Voice | None) -> Result | None:
        claimed = run.claimed
        structlog.contextvars.bind_contextvars(
            prompt_id=str(claimed.id), request_id=claimed.request_id, attempt=claimed.attempt
        )
        result: Result | None = None
        try:
            judged = await attempt.run(claimed, self._model, max_attempts=self._max_attempts, voice=voice)
            outage = self._learn(judged.health)
            result = attempt.settle(claimed, judged, max_attempts=self._max_attempts, outage=outage, random=random)
        except asyncio.CancelledError:
            self._learn("neutral")
            log.info("attempt_cut_off", lost=run.lost)
        except Exception:
            self._learn("neutral")
            log.exception("attempt_crashed")
            retry = Retry("gemini_error", MESSAGES["gemini_error"], delay=1.0)
            result = Result(retry, "neutral", "CRASHED")
        if result is not None:
            _account(result, monotonic() - run.begun)
        return result

    def _ended(self, run: Run, task: "asyncio.Task[Result | None]") -> None:
        """Report the end, also of an attempt that was cut off before its coroutine had begun."""
        self._endings.tell(Ended(run, None if task.cancelled() else task.result()))

    def _learn(self, health: Health) -> bool:
        """Have the gate learn how a call went, which may open it; tells whether Gemini is taken for down."""
        down = self._gate.record(health)
        self._vacated.set()
        return down


def _account(result: Result, seconds: float) -> None:
    """Log and count how an attempt ended."""
    status = result.status if result.status in _KNOWN_STATUSES else "OTHER"
    metrics.GEMINI_SECONDS.labels(status).observe(seconds)
    if isinstance(result.outcome, Answered):
        metrics.GEMINI_TOKENS.labels("prompt").inc(result.outcome.prompt_tokens)
        metrics.GEMINI_TOKENS.labels("reply").inc(result.outcome.reply_tokens)
    log.info(
        "attempt_ended",
        outcome=type(result.outcome).__name__.lower(),
        status=result.status,
        reason=result.reason,
        seconds=round(seconds, 4),
    )


def _over(run: Run) -> bool:
    return run.task is None or run.task.done()
