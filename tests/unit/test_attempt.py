"""An attempt by itself: what it asks, how it judges the answer, and what an outage changes of that."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from gembackend.gemini.faults import Failure, Reply
from gembackend.prompts import attempt
from gembackend.prompts.attempt import Result
from gembackend.prompts.outcome import WORKER_LOST, Answered, GiveUp, Outcome, Retry
from tests.feeds import claim

MOST = 3


class Scripted:
    """A model that gives one answer, and notes which attempts were said to be the last."""

    def __init__(self, answer: Reply | Failure) -> None:
        self._answer = answer
        self.last: list[bool] = []

    def name(self, *, last_attempt: bool) -> str:  # noqa: ARG002
        return "scripted"

    async def generate(
        self,
        history: Sequence[tuple[str, str]],  # noqa: ARG002
        prompt: str,
        *,
        last_attempt: bool,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply | Failure:
        self.last.append(last_attempt)
        if on_text is not None:
            on_text(prompt)
        return self._answer


def settled(result: Result, number: int, *, outage: bool) -> Outcome:
    claimed = replace(claim(), attempt=number)
    return attempt.settle(claimed, result, max_attempts=MOST, outage=outage, random=lambda: 0.0).outcome


async def test_an_answer_is_an_outcome_and_a_sign_of_life() -> None:
    model, said = Scripted(Reply("id", "text", "STOP", None, 1, 2, "scripted")), list[str]()
    result = await attempt.run(claim(), model, max_attempts=MOST, voice=said.append)
    assert result == Result(Answered("id", "text", 1, 2), "ok", "STOP")
    assert (model.last, said) == ([False], ["?"])
    assert settled(result, 1, outage=True) == result.outcome


async def test_the_last_attempt_is_said_to_be_the_last() -> None:
    model = Scripted(Reply("id", "text", "STOP", None, 1, 2, "scripted"))
    await attempt.run(replace(claim(), attempt=MOST), model, max_attempts=MOST)
    assert model.last == [True]


async def test_of_a_prompt_whose_attempts_are_spent_gemini_is_not_asked() -> None:
    model = Scripted(Failure("UNAVAILABLE", None, ""))
    result = await attempt.run(replace(claim(), exhausted=True, attempt=MOST), model, max_attempts=MOST)
    assert result == Result(WORKER_LOST, "neutral", "EXHAUSTED")
    assert model.last == []


@pytest.mark.parametrize(("number", "outage", "kind"), [(1, False, Retry), (MOST, False, GiveUp), (MOST, True, Retry)])
async def test_whether_a_failure_costs_an_attempt_is_settled_when_it_is_known_if_gemini_is_down(
    number: int, outage: bool, kind: type[Outcome]
) -> None:
    model = Scripted(Failure("UNAVAILABLE", None, "reason"))
    result = await attempt.run(replace(claim(), attempt=number), model, max_attempts=MOST)
    assert (result.health, result.status, result.reason) == ("down", "UNAVAILABLE", "reason")
    outcome = settled(result, number, outage=outage)
    assert isinstance(outcome, kind)
    if isinstance(outcome, Retry):
        assert outcome.counted is not outage
