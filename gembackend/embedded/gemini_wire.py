"""What the Gemini stand-in says on the wire: how a call behaves, what it is answered, how a failure is told.

Written against `google.ai.generativelanguage.v1beta` as google-generativeai 0.8.6 ships it. That version knows no
`response_id`, which Google sends as field 5 of `GenerateContentResponse`: it is appended to the bytes by hand.
"""

import asyncio
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    from google.ai import generativelanguage as glm
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.wrappers_pb2 import StringValue
    from google.rpc import error_details_pb2, status_pb2

REQUEST: Any = glm.GenerateContentRequest.pb()
RESPONSE: Any = glm.GenerateContentResponse.pb()
MODEL_REQUEST: Any = glm.GetModelRequest.pb()
MODEL: Any = glm.Model.pb()


@dataclass
class Call:
    """One call the stand-in got; times are the event loop's seconds, `deadline` the seconds it was given.

    `contents` are (role, text) in the order sent. A call that is over has `finished`; `cancelled` tells that the
    caller hung up, or that its deadline passed.
    """

    model: str
    contents: list[tuple[str, str]]
    system_instruction: str
    api_key: str | None
    deadline: float | None
    streaming: bool
    started: float
    finished: float | None = None
    cancelled: bool = False

    @property
    def prompt(self) -> str:
        """The text of the last message."""
        return self.contents[-1][1] if self.contents else ""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How one call is treated. The default answers at once, as `default_answer` does."""

    latency: float = 0.0
    """Seconds before anything is said."""
    hang: bool = False
    """Never say anything."""
    hold: asyncio.Event | None = None
    """Say nothing until this is set."""
    text: str | bytes | Callable[[Call], str] | None = None
    """The answer; bytes go out unchecked, so that they may be invalid UTF-8; None is the default answer."""
    thoughts: str = ""
    """What is thought before the answer, in a part of its own that is marked as a thought."""
    finish_reason: int | str = "STOP"
    """A name of `Candidate.FinishReason`, or any number."""
    block_reason: int | str = 0
    """A name of `PromptFeedback.BlockReason`, or any number; with one, there is no candidate."""
    candidates: bool = True
    """Whether the reply has a candidate."""
    parts: bool = True
    """Whether the candidate has parts."""
    response_id: str | None = None
    """None is a new one each time."""
    status: str | None = None
    """The name of a gRPC code to fail with, and then nothing is answered (but see `break_after`)."""
    detail: str = "as the stand-in was told"
    """The message of that failure."""
    retry_info: float | None = None
    """Seconds for `google.rpc.RetryInfo` in the `grpc-status-details-bin` trailer, where Google sends it."""
    retry_after: str | None = None
    """The value of a `retry-after` trailer."""
    reason: str | None = None
    """The reason of a `google.rpc.ErrorInfo`: Google says `API_KEY_INVALID` this way."""
    details: bytes | None = None
    """Raw bytes for that trailer, in place of what the fields above make."""
    break_after: int | None = None
    """Chunks of a stream to send before it ends: with `status` if that is set, else without a finish reason."""
    pieces: int = 4
    """Chunks that a stream is cut into, about."""
    pace: float = 0.0
    """Seconds between two chunks of a stream."""


@dataclass(frozen=True)
class Answer:
    """What is going to be answered, before it is cut and serialized."""

    text: str | bytes
    response_id: str
    behaviour: Behaviour = field(repr=False)
    prompt_tokens: int
    model: str


def default_answer(call: Call) -> str:
    """The stand-in's own words: what it is, what it was asked, and what it was given as context."""
    earlier = call.contents[:-1]
    answer = (
        "This is gembackend's local stand-in for Gemini: no GEMINI_API_KEY is set, so no model was asked. "
        f"You wrote: “{_brief(call.prompt)}”."
    )
    if not earlier:
        return f"{answer} It was given no earlier messages as context."
    count = "1 earlier message" if len(earlier) == 1 else f"{len(earlier)} earlier messages"
    return f"{answer} It was given {count} as context, the last one beginning “{_brief(earlier[-1][1])}”."


def answer(behaviour: Behaviour, call: Call, response_id: str) -> Answer:
    """What this behaviour answers to this call; token counts are estimated from the texts."""
    text = behaviour.text
    if text is None:
        text = default_answer(call)
    elif callable(text):
        text = text(call)
    prompt_tokens = sum(tokens(message) for _, message in call.contents) + tokens(call.system_instruction)
    chosen = response_id if behaviour.response_id is None else behaviour.response_id
    return Answer(text, chosen, behaviour, prompt_tokens, call.model.removeprefix("models/"))


def tokens(text: str | bytes) -> int:
    """About how many tokens a text has: four characters each, as Google's rule of thumb says."""
    return (len(text) + 3) // 4


def whole(reply: Answer) -> bytes:
    """The serialized reply of a unary call."""
    return _serialize(reply, reply.text, last=True)


def chunks(reply: Answer) -> Iterator[bytes]:
    """The serialized pieces of a streamed reply; only the last has usage and finish reason, as Gemini does."""
    size = max(1, len(reply.text) // reply.behaviour.pieces + 1)
    pieces = [reply.text[start : start + size] for start in range(0, len(reply.text), size)] or [reply.text]
    for index, piece in enumerate(pieces):
        if index == reply.behaviour.break_after:
            return
        yield _serialize(reply, piece, last=index == len(pieces) - 1)


def failure(behaviour: Behaviour) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]:
    """The status, message and trailers of a failing call."""
    code = grpc.StatusCode[behaviour.status or "UNKNOWN"]
    status = status_pb2.Status(code=code.value[0], message=behaviour.detail)
    if behaviour.retry_info is not None:
        delay = Duration(nanos=round(behaviour.retry_info % 1 * 1e9), seconds=int(behaviour.retry_info))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    if behaviour.reason is not None:
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=behaviour.reason, domain="googleapis.com"))
    details = status.SerializeToString() if behaviour.details is None else behaviour.details
    trailers: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", details)]
    if behaviour.retry_after is not None:
        trailers.append(("retry-after", behaviour.retry_after))
    return code, behaviour.detail, tuple(trailers)


def _serialize(reply: Answer, text: str | bytes, *, last: bool) -> bytes:
    behaviour = reply.behaviour
    message = RESPONSE(model_version=reply.model)
    placeholder = text if isinstance(text, str) else "\x7f" * len(text)
    if behaviour.block_reason:
        message.prompt_feedback.block_reason = behaviour.block_reason
    elif behaviour.candidates:
        candidate = message.candidates.add(index=0)
        candidate.content.role = "model"
        if behaviour.thoughts:
            # Field 11, `thought`, is not in the SDK's message type: true, as protobuf writes it.
            candidate.content.parts.add(text=behaviour.thoughts).MergeFromString(b"\x58\x01")
        if behaviour.parts:
            candidate.content.parts.add(text=placeholder)
        if last:
            candidate.finish_reason = behaviour.finish_reason
    if last:
        message.usage_metadata.prompt_token_count = reply.prompt_tokens
        message.usage_metadata.candidates_token_count = tokens(reply.text)
        message.usage_metadata.total_token_count = reply.prompt_tokens + tokens(reply.text)
    wire: bytes = message.SerializeToString()
    if isinstance(text, bytes) and text:
        wire = wire.replace(placeholder.encode(), text)
    return wire + _response_id(reply.response_id)


def _response_id(response_id: str) -> bytes:
    """The identifier as field 5, made from a message that has a string as field 1; an empty one is left out."""
    wire: bytes = StringValue(value=response_id).SerializeToString()
    return wire.replace(b"\x0a", b"\x2a", 1)


def _brief(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 80 else f"{words[:80]}…"
