"""Long answers in pieces: none of it is kept, and a client that stops reading is cut off."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from aiohttp import web

STALL_SECONDS = 30.0
"""How long a client may take to make room for the next SLICE_BYTES."""
SLICE_BYTES = 64 * 1024
"""A larger piece is sent in slices, so that a slow client which does read is not taken for one that does not."""


async def stream_reply(
    request: web.Request, pieces: AsyncGenerator[bytes, None], *, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Answer 200 with the pieces, chunked, each asked for when the one before is on its way.

    What goes wrong before the first piece is answered as usual. Whatever goes wrong afterwards ends the connection
    without the last chunk, so that a client sees a transfer that broke, and never an answer that looks complete.
    """
    async with aclosing(pieces):
        first = await anext(pieces)
        response = web.StreamResponse(headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(request)
        await send(request, response, first)
        async for piece in pieces:
            await send(request, response, piece)
    await response.write_eof()
    return response


async def send(request: web.Request, response: web.StreamResponse, piece: bytes) -> None:
    """Send a piece of an answer that has begun; a client that does not take it in time is cut off: a TimeoutError."""
    for start in range(0, len(piece), SLICE_BYTES):
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await response.write(piece[start : start + SLICE_BYTES])
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise
