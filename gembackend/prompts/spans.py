"""The spans of a prompt's life: accepted, attempted, asked of Gemini, committed. `ops/traces.md` lists them for people.

Names and attributes are OpenTelemetry's where it has some (messaging, GenAI), and begin with `gembackend.` where not.
A prompt's trace context lies beside it in the database, so each attempt continues it, in whichever process and however
the one before ended. Batches have no spans: their members belong to traces of their own, each sampled or not, so every
prompt gets a span for its part, with the batch's times.
"""

from collections.abc import Sequence

from gembackend.gemini.faults import Failure, Reply
from gembackend.messages.rules import NewPrompt, Verdict
from gembackend.plumbing import traces
from gembackend.plumbing.traces import NOTHING, Attributes, Span
from gembackend.prompts.finish_store import Ending
from gembackend.prompts.outcome import Answered, Outcome
from gembackend.prompts.store import Claimed

DESTINATION = "prompts"
"""What the queue is called: the table, which is the queue; entries of the stream are only hints."""


def accepting(prompt: NewPrompt) -> Span:
    """Around the decision on a new prompt: its wait for a batch, and the transaction."""
    if not traces.on():
        return NOTHING
    return traces.begin(f"accept {DESTINATION}", "producer", _messaging("accept", "send", prompt))


def accepted(span: Span, verdict: Verdict) -> None:
    """What was decided; a refusal is an answer, not an error."""
    if span.recorded:
        span.set({"gembackend.prompt.decision": verdict.decision})


def attempting(claimed: Claimed, entry_ids: Sequence[str]) -> Span:
    """Around an attempt; `entry_ids` are the stream's hints that led to it, none if the room's last prompt did."""
    if not traces.on():
        return NOTHING
    attributes = _messaging("attempt", "process", claimed) | {
        "gembackend.attempt.number": claimed.attempt,
        "gembackend.attempt.taken_over": claimed.taken_over,
        "gembackend.queue.seconds": claimed.queue_seconds,
        "gembackend.hints": entry_ids,
    }
    return traces.begin(f"attempt {DESTINATION}", "consumer", attributes, parent=claimed.traceparent)


def attempted(span: Span, outcome: Outcome, status: str) -> None:
    """How it ended; `status` is Gemini's word."""
    if not span.recorded:
        return
    span.set({"gembackend.attempt.outcome": type(outcome).__name__.lower(), "gembackend.attempt.status": status})
    if not isinstance(outcome, Answered):
        span.fail(outcome.code)


def cut_off(span: Span) -> None:
    """It was cut off, which is nobody's error."""
    if span.recorded:
        span.set({"gembackend.attempt.outcome": "cut_off"})


def calling(claimed: Claimed, model: str) -> Span:
    """Around the call to Gemini; what is asked and answered stays out of it."""
    if not traces.on():
        return NOTHING
    attributes: Attributes = {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "gcp.gemini",
        "gen_ai.request.model": model,
        "gen_ai.conversation.id": str(claimed.chatroom_id),
    }
    return traces.begin(f"generate_content {model}", "client", attributes)


def called(span: Span, answer: Reply | Failure) -> None:
    """What Gemini answered, but for the text."""
    if not span.recorded:
        return
    if isinstance(answer, Failure):
        span.fail(answer.status)
        return
    span.set(
        {
            "gen_ai.response.id": answer.response_id,
            "gen_ai.response.model": answer.model,
            "gen_ai.response.finish_reasons": [answer.block_reason or answer.finish_reason],
            "gen_ai.usage.input_tokens": answer.prompt_tokens,
            "gen_ai.usage.output_tokens": answer.reply_tokens,
        }
    )


def committing(claimed: Claimed, attempt: Span, ending: Ending, *, begun: int, batch: int, stale: bool) -> Span:
    """What the committer did with an attempt's end, since `begun` (ns) and in a batch of so many; ends with its block.

    It is a child of the attempt, which has ended by then.
    """
    if not traces.on():
        return NOTHING
    attributes = _messaging("commit", "settle", claimed) | {
        "db.system.name": "postgresql",
        "gembackend.prompt.status": ending.status,
        "gembackend.batch.size": batch,
    }
    span = traces.begin(f"commit {DESTINATION}", "client", attributes, parent=attempt.traceparent, started=begun)
    if stale:
        span.fail("stale_write")
    return span


def _messaging(
    operation: str, kind: str, prompt: NewPrompt | Claimed
) -> dict[str, str | bool | int | float | Sequence[str]]:
    return {
        "messaging.system": "gembackend",
        "messaging.destination.name": DESTINATION,
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
        "messaging.message.id": str(prompt.id),
        "messaging.message.conversation_id": str(prompt.chatroom_id),
    }
