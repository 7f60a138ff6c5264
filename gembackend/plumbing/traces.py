"""Traces: the only door to OpenTelemetry. Off unless `start` is given an endpoint, and then nothing of it is imported.

Whoever makes a span asks for it here and gets either a real one or `NOTHING`, which has the same few methods. What a
span is called and what it tells is decided where the work is done: `web.tracing` and `prompts.spans`.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol

import structlog

if TYPE_CHECKING:
    from gembackend.plumbing.otel import Recorder

Kind = Literal["server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | bool | int | float | Sequence[str]]


class TracesRefused(Exception):
    """OpenTelemetry cannot work with its own variables; the text says why."""


class Span(Protocol):
    """A piece of work, from `begin` to the end of its `with` block; what is begun inside is its child."""

    @property
    def recorded(self) -> bool:
        """Whether it will be sent: traces are on and the trace is sampled."""

    @property
    def traceparent(self) -> str | None:
        """Its W3C trace context, which makes work elsewhere its child; None when traces are off."""

    def set(self, attributes: Attributes) -> None:
        """Tell more of it. No text of people, no phone, no secret: spans leave the house."""

    def fail(self, error: str) -> None:
        """Mark it as failed; `error` is one of few words."""

    def __enter__(self) -> "Span": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class _Nothing:
    """The span of work that is not traced."""

    recorded = False
    traceparent = None

    def set(self, attributes: Attributes) -> None:
        """Nothing."""

    def fail(self, error: str) -> None:
        """Nothing."""

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


NOTHING: Span = _Nothing()
CURRENT: ContextVar[Span] = ContextVar("span", default=NOTHING)
"""The innermost span whose block this is in."""

_recorder: "Recorder | None" = None


def installed() -> bool:
    """Whether the extra `otel` is there."""
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http.trace_exporter") is not None
    except ModuleNotFoundError:
        return False


def start(endpoint: str | None) -> None:
    """Send spans to this OTLP endpoint (the URL for traces) from now on; None leaves traces off.

    It has to be `installed`. Sampling, headers, batches and the rest are OpenTelemetry's own variables; raises
    TracesRefused when it cannot work with them.
    """
    global _recorder
    if endpoint is not None:
        _recorder = _make(endpoint)


async def stop(seconds: float) -> None:
    """Send what is left, for at most so long, and be off."""
    global _recorder
    recorder, _recorder = _recorder, None
    if recorder is not None:
        await recorder.close(seconds)


async def reach(endpoint: str, seconds: float) -> str | None:
    """Why this endpoint does not take spans, or None when it does."""
    recorder = _make(endpoint)
    try:
        return await recorder.reach(seconds)
    finally:
        await recorder.close(0)


def on() -> bool:
    """Whether spans are made at all; spares the hot path from describing them."""
    return _recorder is not None


def begin(
    name: str, kind: Kind, attributes: Attributes, *, parent: str | None = None, started: int | None = None
) -> Span:
    """Begin a span, which ends with its `with` block.

    It continues `parent`, a W3C traceparent, when that makes sense, and else the span whose block this is in, if any.
    `started` is when it began, in nanoseconds since 1970, when that is not now.
    """
    if _recorder is None:
        return NOTHING
    return _recorder.begin(name, kind, attributes, parent, started)


def trace_id() -> str | None:
    """The id of the trace that is recorded here, if any."""
    span = CURRENT.get()
    return span.traceparent[3:35] if span.recorded and span.traceparent else None


def joined(traceparent: str | None) -> AbstractContextManager[object]:
    """A block whose log lines name this span, if it is recorded: for work that an actor does for many at once."""
    if _recorder is None or traceparent is None or not int(traceparent[53:55], 16) & 1:
        return NOTHING
    return structlog.contextvars.bound_contextvars(trace_id=traceparent[3:35], span_id=traceparent[36:52])


def _make(endpoint: str) -> "Recorder":
    from gembackend.plumbing.otel import Recorder

    try:
        return Recorder(endpoint)
    except ValueError as error:
        raise TracesRefused(f"OpenTelemetry cannot work with its OTEL_ variables: {error}") from error
