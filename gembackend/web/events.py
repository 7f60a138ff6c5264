"""Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import cast

from aiohttp import web

from gembackend.web.connection import Connection
from gembackend.web.middleware import settle
from gembackend.web.routing import Parameter
from gembackend.web.streaming import begin

MEDIA_TYPE = "text/event-stream"
RECONNECT_MILLISECONDS = 1000
"""What clients are told to wait before they connect again."""

LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    "header",
    "The id of the last event that was received: the stream goes on behind it.",
    str,
    None,
)


class EventStream:
    """One stream of events to one client. Events are gathered by `add` and sent by `flush`."""

    def __init__(self, request: web.Request, headers: Mapping[str, str]) -> None:
        self._request = request
        self._headers = {"Content-Type": MEDIA_TYPE, "X-Accel-Buffering": "no", **headers}
        self._unsent = bytearray(b": listening\n\n")
        self._first = b"retry: %d\n" % RECONNECT_MILLISECONDS

    async def open(self, gone: Callable[[], None]) -> None:
        """Begin the answer; the request counts as answered from now on. `gone` is called when the client is."""
        cast(Connection, self._request.protocol).when_lost(gone)
        self._response = await begin(self._request, self._headers)
        settle(self._request)

    @property
    def connected(self) -> bool:
        """Whether there is still somebody at the other end."""
        transport = self._request.transport
        return transport is not None and not transport.is_closing()

    def add(self, name: str, event_id: str, data: bytes) -> None:
        """Take an event; `data` is JSON, and so has no line breaks.

        The first one says when to come back: some clients take a block that says only this for an event.
        """
        self._unsent += b"%bid: %b\nevent: %b\ndata: %b\n\n" % (self._first, event_id.encode(), name.encode(), data)
        self._first = b""

    async def flush(self) -> None:
        """Send what has been added; a client that is gone, or was cut off, is not `connected` any more."""
        if not self._unsent:
            return
        unsent, self._unsent = bytes(self._unsent), bytearray()
        with suppress(ConnectionError):
            await self._response.write(unsent)

    async def beat(self) -> None:
        """Send a comment, which keeps proxies from closing the connection and finds out whether it is there."""
        self._unsent += b": still here\n\n"
        await self.flush()

    @property
    def response(self) -> web.StreamResponse:
        """What the handler returns."""
        return self._response
