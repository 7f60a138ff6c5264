"""The pool of workers by itself: every run that is begun is reported, however it ends."""

import asyncio
from collections.abc import Callable, Sequence

from gembackend.actors import Mailbox
from gembackend.gemini.faults import Failure, Reply
from gembackend.prompts.breaker import Breaker
from gembackend.prompts.feed import Feed
from gembackend.prompts.limit import AdaptiveLimit
from gembackend.prompts.pool import Ended, WorkerPool
from tests.unit.test_feed import Line, claim


class Eager:
    """A model that answers at once."""

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
        return Reply("id", prompt, "STOP", None, 1, 1, "eager")


async def test_a_heartbeat_that_comes_late_does_not_end_a_newer_attempt_of_the_same_prompt() -> None:
    endings: Mailbox[Ended] = Mailbox(capacity=8)
    pool = WorkerPool(Eager(), endings, Feed(Line(), "here"), AdaptiveLimit(2), Breaker(5), max_attempts=5)
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
    pool = WorkerPool(Eager(), endings, Feed(Line(), "here"), AdaptiveLimit(2), Breaker(5), max_attempts=5)
    abandoned, other = claim(), claim()
    pool.begin(abandoned, ("1-1",))
    pool.begin(other, ("2-1",))
    assert pool.free() == 0
    assert pool.abandon(abandoned.id)
    async with asyncio.timeout(5):
        ends = [*await endings.drain(1), *await endings.drain(1)]
    assert {(ended.run.claimed.id, ended.run.lost, ended.result is None) for ended in ends} == {
        (abandoned.id, True, True),
        (other.id, False, False),
    }
    for ended in ends:
        pool.release(ended.run)
    assert pool.free() == 2
