"""A stand-in for an OpenTelemetry collector: OTLP over HTTP, protobuf, compressed or not."""

import asyncio
import gzip
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

PATIENCE = 20.0


@dataclass(frozen=True)
class Seen:
    """A span that arrived. Ids are hex; `parent` is empty for a root; times are nanoseconds since 1970."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    started: int
    ended: int
    failed: bool
    message: str
    events: int
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Collector:
    """Listens on 127.0.0.1. `status` is what it answers; `raw` is every body that arrived, decompressed."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self.raw: list[bytes] = []
        self.encodings: set[str] = set()
        self.status = 200
        self.url = ""
        self._news = asyncio.Event()

    async def start(self, port: int = 0) -> str:
        """Listen: the value for OTEL_EXPORTER_OTLP_ENDPOINT."""
        app = web.Application()
        app.router.add_post("/v1/traces", self._take)
        self._runner = web.AppRunner(app, auto_decompress=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{site.port}"
        return self.url

    async def stop(self) -> None:
        """Listen no more."""
        await self._runner.cleanup()

    async def wait_until(self, happened: Callable[[], bool]) -> None:
        """Wait until something is true that arriving spans bring about."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not happened():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not within {PATIENCE:g} s; there are {[span.name for span in self.spans]}") from None

    async def trace(self, trace: str, *names: str) -> list[Seen]:
        """The spans of a trace in the order of their beginnings, once there are spans of just these names."""
        await self.wait_until(lambda: len(self.of(trace)) >= len(names))
        found = self.of(trace)
        assert [span.name for span in found] == list(names)
        return found

    def of(self, trace: str) -> list[Seen]:
        """The spans of a trace so far, in the order of their beginnings."""
        return sorted((span for span in self.spans if span.trace == trace), key=lambda span: span.started)

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        assert request.content_type == "application/x-protobuf"
        self.encodings.add(encoding := request.headers.get("Content-Encoding", ""))
        body = gzip.decompress(body) if encoding == "gzip" else body
        self._news.set()
        if self.status != 200:
            return web.Response(status=self.status)
        self.raw.append(body)
        for batch in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _plain(batch.resource.attributes)
            self.spans += [_seen(span, resource) for scope in batch.scope_spans for span in scope.spans]
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )


def _seen(span: Span, resource: dict[str, Any]) -> Seen:
    return Seen(
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        started=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        message=span.status.message,
        events=len(span.events),
        attributes=_plain(span.attributes),
        resource=resource,
    )


def _plain(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    def value(held: Any) -> Any:
        if held.WhichOneof("value") == "array_value":
            return [value(one) for one in held.array_value.values]
        return getattr(held, held.WhichOneof("value"))

    return {attribute.key: value(attribute.value) for attribute in attributes}
