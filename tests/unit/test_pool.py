"""The pool of workers by itself: how many may begin, what is learnt of each run, and that its end is reported."""

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

from gembackend.actors import Mailbox
from gembackend.gemini.faults import Failure, Reply
from gembackend.live.feed import Feed
from gembackend.prompts.breaker import PAUSE, Breaker
from gembackend.prompts.gate import Gate
from gembackend.prompts.limit import AdaptiveLimit
from gembackend.prompts.outcome import BACKOFF_BASE, Retry
from gembackend.prompts.pool import Ended, WorkerPool
from tests.feeds import Line, claim


class Eager:
    """A model that answers at once, or fails with the status that it was given."""

    def __init__(self, status: str | None = None) -> None:
        self._status = status

    def name(self, *, last_attempt: bool) -> str:
        return f"eager-{last_attempt}"

    async def generate(
        self,
        history: Sequence[tuple[str, str]],  # noqa: ARG002
        prompt: str,
        *,
        last_attempt: bool,  # noqa: ARG002
        on_text: Callable[[str], None] | None = None,  # noqa: ARG002
    ) -> Reply | Failure:
        if self._status is not None:
            return Failure(self._status, None, "")
        return Reply("id", prompt, "STOP", None, 1, 1, "eager")


def pool_of(model: Eager, gate: Gate, endings: Mailbox[Ended] | None = None) -> WorkerPool:
    """A pool that nobody listens to, whose prompts have five attempts."""
    reported = Mailbox[Ended](capacity=8) if endings is None else endings
    return WorkerPool(model, reported, Feed(Line(), "here"), gate, max_attempts=5)


async def ends(pool: WorkerPool, endings: Mailbox[Ended], runs: int) -> list[Ended]:
    """Begin so many attempts at once, each in a room of its own, and wait for their ends."""
    for _ in range(runs):
        pool.begin(claim(), ())
    ended: list[Ended] = []
    async with asyncio.timeout(5):
        while len(ended) < runs:
            ended += await endings.drain(runs)
    return ended


async def test_no_more_attempts_begin_than_the_adaptive_limit_allows_at_the_moment() -> None:
    limit = AdaptiveLimit(8)
    pool = pool_of(Eager(), Gate(limit, Breaker(5)))
    assert (pool.free(), pool.turns(5)) == (8, 5)
    limit.record("rate_limited", 0.0)
    assert pool.free() == 4
    for _ in range(4):
        pool.begin(claim(), ())
    assert (pool.free(), pool.turns(5)) == (0, 0)
    limit.record("rate_limited", 9.0)
    assert pool.free() <= 0, "those that have begun go on, and none joins them"


async def test_nothing_begins_while_the_breaker_is_open_and_then_one_attempt_by_itself() -> None:
    breaker = Breaker(1)
    pool = pool_of(Eager(), Gate(AdaptiveLimit(8), breaker))
    breaker.record("down", monotonic() + 60)
    assert (pool.free(), pool.turns(5), await pool.vacancy(0.01)) == (0, 0, 0)
    breaker.record("ok", 0.0)
    breaker.record("down", monotonic() - PAUSE)
    assert (pool.free(), pool.turns(5), await pool.vacancy(0.01)) == (1, 1, 1)
    pool.begin(claim(), ())
    assert (pool.free(), pool.turns(5)) == (0, 0), "others wait for what the probe says"


async def test_the_limit_and_the_breaker_learn_how_every_attempt_went() -> None:
    for status, left, state in (
        (None, 8, "closed"),
        ("RESOURCE_EXHAUSTED", 4, "closed"),
        ("UNAVAILABLE", 8, "open"),
        ("INVALID_ARGUMENT", 8, "closed"),
    ):
        limit, breaker, endings = AdaptiveLimit(8), Breaker(2), Mailbox[Ended](capacity=8)
        pool = pool_of(Eager(status), Gate(limit, breaker), endings)
        await ends(pool, endings, 3)
        assert (status, limit.value, breaker.state) == (status, left, state)


async def test_attempts_that_failed_together_are_not_tried_again_together() -> None:
    endings: Mailbox[Ended] = Mailbox(capacity=8)
    pool = pool_of(Eager("INTERNAL"), Gate(AdaptiveLimit(8), Breaker(99)), endings)
    outcomes = [ended.result.outcome for ended in await ends(pool, endings, 8) if ended.result]
    delays = [outcome.delay for outcome in outcomes if isinstance(outcome, Retry)]
    assert len(delays) == 8 and len(set(delays)) > 1
    assert all(BACKOFF_BASE / 2 <= delay <= BACKOFF_BASE for delay in delays)


async def test_a_heartbeat_that_comes_late_does_not_end_a_newer_attempt_of_the_same_prompt() -> None:
    endings: Mailbox[Ended] = Mailbox(capacity=8)
    pool = pool_of(Eager(), Gate(AdaptiveLimit(2), Breaker(5)), endings)
    newer = claim(fence=2)
    pool.begin(newer, ())
    assert pool.held() == [(newer.id, 2)]
    assert not pool.abandon(newer.id, 1)
    assert pool.abandon(newer.id, 2)
    async with asyncio.timeout(5):
        (ended,) = await endings.drain(1)
    assert ended.run.lost


async def test_an_attempt_that_is_abandoned_before_it_has_begun_gives_its_slot_back() -> None:
    endings: Mailbox[Ended] = Mailbox(capacity=8)
    pool = pool_of(Eager(), Gate(AdaptiveLimit(2), Breaker(5)), endings)
    abandoned, other = claim(), claim()
    pool.begin(abandoned, ("1-1",))
    pool.begin(other, ("2-1",))
    assert pool.free() == 0
    assert pool.abandon(abandoned.id)
    async with asyncio.timeout(5):
        ended = [*await endings.drain(1), *await endings.drain(1)]
    assert {(one.run.claimed.id, one.run.lost, one.result is None) for one in ended} == {
        (abandoned.id, True, True),
        (other.id, False, False),
    }
    for one in ended:
        pool.release(one.run)
    assert pool.free() == 2
