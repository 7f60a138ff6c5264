"""The HTTP/1.1 connection: aiohttp's, with bounds on how slowly it may be written and read, and our own error page.

aiohttp answers a request that it cannot parse with a page of its own, which names its version and quotes the
parser, and logs the offending line whole; it also lets a connection send its headers as slowly as it likes, and
read its answers never.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage, StreamWriter
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from gembackend.plumbing.faults import Fault
from gembackend.plumbing.logs import logger
from gembackend.web import problems
from gembackend.web.flow import SlicingWriter, Watch
from gembackend.web.middleware import UNMATCHED, account, dress, request_id
from gembackend.web.target import Targets

HEADERS_SECONDS = 10.0
HEADER_BYTES = 16 * 1024
"""The longest header; a longer one is a 400."""
KEEPALIVE_SECONDS = 75.0
LINGER_SECONDS = 5.0
"""How long the rest of a refused body is read and thrown away, so that the client sees the answer."""

_HEADERS_END = b"\r\n\r\n"

log = logger(__name__)


class ConnectionServer(web.Server):
    """Makes a `Connection` for each socket, and of what comes over it a request as `targets` and `web.flow` want it."""

    def __init__(self, plain: web.Server, targets: Targets) -> None:
        super().__init__(plain.request_handler, request_factory=self._request)
        self._plain_factory = plain.request_factory
        self._targets = targets

    def __call__(self) -> "Connection":
        return Connection(self, loop=self._loop, **self._kwargs)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        """The request of a message; `raw_path` is the target as it was sent."""
        assert isinstance(protocol, Connection) and isinstance(writer, StreamWriter)
        message = message._replace(url=self._targets.of(message.url))
        return self._plain_factory(message, payload, protocol, SlicingWriter(writer, protocol.watch), task)


class Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ("_begun", "_end", "_headers_timer", "_last", "_when_lost", "watch")

    watch: Watch

    def __init__(self, manager: web.Server, *, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(
            manager,
            loop=loop,
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=LINGER_SECONDS,
            max_field_size=HEADER_BYTES,
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]
            **options,
        )
        self._headers_timer: asyncio.TimerHandle | None = None
        self._last: StreamReader | None = None  # the body of the last request
        self._begun = False  # whether something of the next one has come
        self._end = b""
        self._when_lost: Callable[[], None] | None = None

    def when_lost(self, call: Callable[[], None]) -> None:
        """Call this when the connection is lost, which the handler of a long answer would find out late."""
        self._when_lost = call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give a new connection HEADERS_SECONDS to send a request's headers."""
        self.watch = Watch(self._loop, cast(asyncio.Transport, transport))
        super().connection_made(transport)
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and start or stop the clock on a request's headers."""
        seen, fed = self._request_count, self._last.total_bytes if self._last else 0
        super().data_received(data)
        self._end = (self._end + data)[-len(_HEADERS_END) :]
        if self._request_count != seen:
            self._stop_timer()
            self._last, fed, self._begun = self._messages[-1][1] if self._messages else None, 0, False
        if data and self._last is not None and self._last.is_eof():
            self._begun = not self._end_of_request(data, self._last.total_bytes - fed)
        if self._request_count == seen and self._waiter is not None:
            self._await_headers()

    def _end_of_request(self, data: bytes, body: int) -> bool:
        """Whether nothing came behind a request that is complete; `body` is how many of the bytes are of its body."""
        if self._end == _HEADERS_END:  # as chunks end, too
            return True
        return body > 0 and (body == len(data) or data[:-body].endswith(_HEADERS_END))

    def close(self) -> None:
        """Take no more requests; close at once when idle, which aiohttp leaves for later."""
        idle = self._waiter is not None
        super().close()
        if idle:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the clocks with the connection, and let the handler of a long answer know."""
        self._stop_timer()
        self.watch.end()
        super().connection_lost(exc)
        if self._when_lost is not None:
            self._when_lost()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; one that aiohttp raised outside the middleware (an odd Expect) is made ours first."""
        if isinstance(resp, web.HTTPException):
            resp = self._refuse(request, problems.render_http(resp, request_id(request)))
        if self._close and not resp.prepared:
            resp.force_close()
        finished = await super().finish_response(request, resp, start_time)
        if self._begun and not self._messages:
            self._await_headers()
        return finished

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """Answer what is not HTTP with a 400, and what slipped past the middleware with a 500; then close."""
        if request.writer.output_size > 0:
            raise ConnectionAbortedError
        fault = Fault("malformed_request", "The request is not valid HTTP.")
        if status >= 500:
            log.error("unexpected_error", exc_info=exc)
            fault = problems.internal_error()
        response = self._refuse(request, problems.render(fault, request_id(request)))
        response.force_close()
        return response

    def _refuse(self, request: web.BaseRequest, response: web.Response) -> web.Response:
        structlog.contextvars.bind_contextvars(request_id=request_id(request))
        dress(request, response)
        account(request, UNMATCHED, response.status, 0.0)
        return response

    def _await_headers(self) -> None:
        if self._headers_timer is None:
            self._headers_timer = self._loop.call_later(HEADERS_SECONDS, self._headers_late)

    def _stop_timer(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None

    def _headers_late(self) -> None:
        self._headers_timer = None
        self.force_close()
