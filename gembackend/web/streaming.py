"""Long answers in pieces, none of which is kept; a client that stops reading is cut off (web.flow)."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from aiohttp import HttpVersion11, web

from gembackend.web.flow import break_when_closed


async def stream_reply(
    request: web.Request, pieces: AsyncGenerator[bytes, None], *, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Answer 200 with the pieces, each asked for when the one before is on its way.

    What goes wrong before the first piece is answered as usual. Whatever goes wrong afterwards ends the connection
    without the last chunk, so that a client sees a transfer that broke, and never an answer that looks complete. In
    HTTP/1.0, where the end of the connection is the end of the answer, the connection is broken then, not closed.
    """
    async with aclosing(pieces):
        first = await anext(pieces)
        response = await begin(request, headers)
        _break_when_closed(request, True)
        await response.write(first)
        async for piece in pieces:
            await response.write(piece)
    await response.write_eof()
    _break_when_closed(request, False)
    return response


async def begin(request: web.Request, headers: Mapping[str, str]) -> web.StreamResponse:
    """Begin an answer of unknown length: in chunks, or before HTTP/1.1 until the connection is closed."""
    response = web.StreamResponse(headers=headers)
    if request.version < HttpVersion11:
        response.force_close()
    await response.prepare(request)
    return response


def _break_when_closed(request: web.Request, wanted: bool) -> None:
    """Whatever ends the connection of an HTTP/1.0 client, be it the end of the process, must not look like the end."""
    if request.version < HttpVersion11 and request.transport is not None:
        break_when_closed(request.transport, wanted)
