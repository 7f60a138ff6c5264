"""What one call to Gemini can end in, as values that know nothing of the SDK or of gRPC."""

from dataclasses import dataclass, replace

NO_CANDIDATE = "NO_CANDIDATE"
"""`Reply.finish_reason` of a reply that holds no candidate at all."""

UNSPECIFIED = "FINISH_REASON_UNSPECIFIED"
"""`Reply.finish_reason` of a streamed chunk that more chunks follow."""

TIMEOUT = "TIMEOUT"
"""`Failure.status` of a call that did not end within its time."""

BROKEN = "BROKEN"
"""`Failure.status` of a call whose bytes could not be read, or that broke in a way gRPC has no code for."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A call that Gemini completed; whether it is an answer is for `prompts.outcome` to say.

    `finish_reason` and `block_reason` carry the names of Google's enums (`STOP`, `SAFETY`, …), `UNKNOWN_<n>` for a
    number newer than the SDK; `finish_reason` is `NO_CANDIDATE` when there was no candidate, `block_reason` is None
    when the prompt was let through. `text` is empty when there were no parts, `response_id` when Gemini sent none.
    """

    response_id: str
    text: str
    finish_reason: str
    block_reason: str | None
    prompt_tokens: int
    reply_tokens: int
    model: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that ended without a reply.

    `status` is the name of a gRPC code (`UNAVAILABLE`, …), `TIMEOUT` or `BROKEN`; `retry_after` is how many seconds
    Gemini asked to wait, if it did; `reason` is for the log alone: a word such as `API_KEY_INVALID`, and never a text,
    which may quote the prompt.
    """

    status: str
    retry_after: float | None
    reason: str


def joined(reply: Reply, chunk: Reply) -> Reply:
    """A streamed reply with one more chunk: texts add up, and what a chunk leaves out stays as it was."""
    return replace(
        reply,
        response_id=reply.response_id or chunk.response_id,
        text=reply.text + chunk.text,
        finish_reason=_later(reply.finish_reason, chunk.finish_reason),
        block_reason=chunk.block_reason or reply.block_reason,
        prompt_tokens=chunk.prompt_tokens or reply.prompt_tokens,
        reply_tokens=chunk.reply_tokens or reply.reply_tokens,
    )


def _later(known: str, told: str) -> str:
    """The finish reason after another chunk: a reason stays, and having a candidate is more than having none."""
    if told == NO_CANDIDATE or (told == UNSPECIFIED and known != NO_CANDIDATE):
        return known
    return told
