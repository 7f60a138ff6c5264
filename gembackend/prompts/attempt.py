"""One attempt at a prompt: call Gemini, decide the outcome. No step touches a store, so any may be cancelled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    claimed: Claimed,
    model: Model,
    *,
    voice: Callable[[str], None] | None = None,
    max_attempts: int,
    outage: Callable[[Health], bool],
    random: Callable[[], float],
) -> Result:
    """Make the attempt that this claim stands for.

    `voice` hears the reply while it comes; `outage` is told how the call went, and says if Gemini is down.
    """
    if claimed.exhausted:
        outage("neutral")
        return Result(outcome.WORKER_LOST, "neutral", "EXHAUSTED")
    last = claimed.attempt >= max_attempts
    with spans.calling(claimed, model.name(last_attempt=last)) as span:
        answer = await model.generate(claimed.history, claimed.content, last_attempt=last, on_text=voice)
        spans.called(span, answer)
    judged, health, status, reason = _judge(answer)
    decided = outcome.decide(
        judged, attempt=claimed.attempt, max_attempts=max_attempts, outage=outage(health), random=random
    )
    return Result(decided, health, status, reason)


def _judge(answer: Reply | Failure) -> tuple[Outcome, Health, str, str]:
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
            return judged, "ok", answer.block_reason or answer.finish_reason, ""
        case Failure():
            judged = outcome.of_failure(status=answer.status, retry_after=answer.retry_after)
            return judged, outcome.failure_class(answer.status), answer.status, answer.reason
