"""OpenTelemetry at work: imported by `traces`, and by nobody else, once traces are on.

Ended spans go into the SDK's bounded queue and leave in a thread of its own; a collector that is slow or away costs
spans and nothing else.
"""

import asyncio
import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import Token
from types import TracebackType
from typing import Any

import requests
import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from gembackend import __version__
from gembackend.plumbing import logs
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.outages import Outages
from gembackend.plumbing.traces import CURRENT, Attributes, Kind, Span
from gembackend.plumbing.waiting import within

log = logs.logger(__name__)

_TRACEPARENT = re.compile("([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_KINDS = {
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
_NO_PARENT = Context()
_KNOWN_FLAGS = 0x03


class Recorder:
    """Makes spans and sends them to one endpoint; raises ValueError when the SDK's own variables make no sense."""

    def __init__(self, endpoint: str) -> None:
        self._exporter = _Exporter(endpoint)
        self._processor = BatchSpanProcessor(self._exporter)
        provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("gembackend", __version__)

    def begin(self, name: str, kind: Kind, attributes: Attributes, parent: str | None, started: int | None) -> Span:
        """A span that has begun; see `traces.begin`."""
        context = _remote(parent) if parent else None
        if context is None:
            around = CURRENT.get()
            context = around.context if isinstance(around, _Span) else _NO_PARENT
        return _Span(self._tracer.start_span(name, context, _KINDS[kind], attributes, start_time=started))

    async def reach(self, seconds: float) -> str | None:
        """Send nothing, and tell why it was not taken."""
        answered = await _aside(lambda: self._exporter.export([]), seconds)
        return self._exporter.trouble if answered else self._exporter.heard

    async def close(self, seconds: float) -> None:
        """Send what is left for at most so long; what is under way then is broken off."""
        await _aside(self._processor.shutdown, seconds)
        self._exporter.shutdown()


class _Span:
    """A span of OpenTelemetry as the house knows spans."""

    __slots__ = ("_around", "_named", "_span", "context", "recorded", "traceparent")

    def __init__(self, span: trace.Span) -> None:
        own = span.get_span_context()
        self._span = span
        self.context = trace.set_span_in_context(span, _NO_PARENT)
        self.recorded = span.is_recording() and own.trace_flags.sampled
        self.traceparent = f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}" if own.is_valid else None

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def fail(self, error: str) -> None:
        self._span.set_attribute("error.type", error)
        self._span.set_status(Status(StatusCode.ERROR))

    def __enter__(self) -> Span:
        self._around: Token[Span] = CURRENT.set(self)
        self._named: Mapping[str, Token[Any]] = {}
        if self.recorded and self.traceparent:
            self._named = structlog.contextvars.bind_contextvars(
                trace_id=self.traceparent[3:35], span_id=self.traceparent[36:52]
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The message of an exception stays out, as it does in the logs: drivers put users' text into theirs.
        if error is not None:
            self.fail(error.code.name if isinstance(error, Fault) else type(error).__qualname__)
        structlog.contextvars.reset_contextvars(**self._named)
        CURRENT.reset(self._around)
        self._span.end()


class _Exporter(SpanExporter):
    """OTLP over HTTP. Says once, and in our words, that spans are not taken: the SDK says it at every try."""

    def __init__(self, endpoint: str) -> None:
        self._outages = Outages()
        self._session = _Session()
        self._otlp = OTLPSpanExporter(endpoint=endpoint, session=self._session)
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        self._queue_log = logging.getLogger("opentelemetry.sdk._shared_internal")
        self._queue_log.addFilter(self._is_news)

    @property
    def trouble(self) -> str | None:
        """Why the latest spans were not taken, or None."""
        return self._outages.reason

    @property
    def heard(self) -> str:
        """What came of the latest try to send: a status, or the kind of error."""
        return self._session.said

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; called in the SDK's thread."""
        result = self._otlp.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._outages.works():
                log.info("traces_taken_again")
        elif self._outages.failed(self.heard):
            log.warning("traces_not_taken", reason=self.heard)
        return result

    def shutdown(self) -> None:
        """Break off what is under way; harmless when it has been called."""
        self._queue_log.removeFilter(self._is_news)
        if not self._otlp._shutdown:
            self._otlp.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002
        """Nothing is kept here."""
        return True

    def _is_news(self, _record: logging.LogRecord) -> bool:
        """A full queue is worth a line unless the reason has had one."""
        return self.trouble is None


class _Session(requests.Session):
    """Remembers what the latest answer was: a status, or the kind of error that came instead."""

    said = "no answer"

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send as requests does."""
        try:
            response = super().send(request, **options)
        except requests.RequestException as error:
            self.said = type(error).__name__
            raise
        self.said = str(response.status_code)
        return response


async def _aside(work: Callable[[], object], seconds: float) -> bool:
    """Do blocking work in a thread that nobody waits for longer than so, not even the interpreter's end.

    Tells whether it was done in time.
    """
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        try:
            work()
        finally:
            with suppress(RuntimeError):  # the loop did not wait, and is closed
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="traces-aside", daemon=True).start()
    return await within(done, seconds)


def _resource() -> Resource:
    """Who sends the spans, the SDK's random `service.instance.id` included; what OTEL_ variables say of it wins."""
    ours = {"service.name": "gembackend", "service.version": __version__}
    return Resource.create({**ours, **OTELResourceDetector().detect().attributes})


def _remote(traceparent: str) -> Context | None:
    """The context that a W3C traceparent stands for, or None when it is none."""
    match = _TRACEPARENT.fullmatch(traceparent)
    # W3C Trace Context, section 3.2: a later version may have more fields, and there is no version ff.
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return None
    flags = TraceFlags(int(match[4], 16) & _KNOWN_FLAGS)
    parent = SpanContext(int(match[2], 16), int(match[3], 16), is_remote=True, trace_flags=flags)
    return trace.set_span_in_context(NonRecordingSpan(parent), _NO_PARENT) if parent.is_valid else None
