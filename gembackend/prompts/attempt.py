"""One attempt at a prompt: call Gemini, decide the outcome.

No step touches a store or tells anybody, so any may be cancelled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from gembackend.gemini.faults import Failure, Reply
from gembackend.prompts import outcome, spans
from gembackend.prompts.outcome import Health, Outcome
from gembackend.prompts.store import Claimed


class Model(Protocol):
    """What answers prompts."""

    def name(self, *, last_attempt: bool) -> str:
        """The model that is asked."""

    async def generate(
        self,
        history: Sequence[tuple[str, str]],
        prompt: str,
        *,
        last_attempt: bool,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply | Failure:
        """Answer a prompt after a history of (role, text), oldest first; `on_text` hears the reply as it comes."""


@dataclass(frozen=True, slots=True)
class Result:
    """How an attempt ended, what it says of Gemini as a whole, and words for logs.

    `status` is a gRPC status, or why a reply ended; `reason` is what Gemini gave for an error, if it did.
    """

    outcome: Outcome
    health: Health
    status: str
    reason: str = ""


async def run(
    claimed: Claimed, model: Model, *, max_attempts: int, voice: Callable[[str], None] | None = None
) -> Result:
    """Make the attempt that this claim stands for and judge it by itself; `voice` hears the reply while it comes."""
    if claimed.exhausted:
        return Result(outcome.WORKER_LOST, "neutral", "EXHAUSTED")
    last = claimed.attempt >= max_attempts
    with spans.calling(claimed, model.name(last_attempt=last)) as span:
        answer = await model.generate(claimed.history, claimed.content, last_attempt=last, on_text=voice)
        spans.called(span, answer)
    return _judge(answer)


def settle(claimed: Claimed, result: Result, *, max_attempts: int, outage: bool, random: Callable[[], float]) -> Result:
    """The result with its final outcome, by what else is known of Gemini; `outage` says that it is taken for down."""
    decided = outcome.decide(
        result.outcome, attempt=claimed.attempt, max_attempts=max_attempts, outage=outage, random=random
    )
    return replace(result, outcome=decided)


def _judge(answer: Reply | Failure) -> Result:
    match answer:
        case Reply():
            judged = outcome.of_reply(
                response_id=answer.response_id,
                text=answer.text,
                finish_reason=answer.finish_reason,
                block_reason=answer.block_reason,
                prompt_tokens=answer.prompt_tokens,
                reply_tokens=answer.reply_tokens,
            )
            return Result(judged, "ok", answer.block_reason or answer.finish_reason)
        case Failure():
            asked = outcome.of_failure(status=answer.status, retry_after=answer.retry_after)
            return Result(asked, outcome.failure_class(answer.status), answer.status, answer.reason)
