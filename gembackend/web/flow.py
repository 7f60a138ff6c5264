"""How an answer leaves: in slices, each when the one before is on its way, and only as long as the client reads."""

import asyncio
import fcntl
import socket
import struct
import termios
from contextlib import suppress
from typing import TypeAlias

from aiohttp.http import StreamWriter

from gembackend.plumbing import metrics

Piece: TypeAlias = "bytes | bytearray | memoryview[int] | memoryview[bytes]"

STALL_SECONDS = 15.0
"""A client that reads nothing for so long, although there is something to read, is cut off."""
SLICE_BYTES = 64 * 1024
"""How much of an answer is handed over at once; the transport holds about as much again."""

_LOOKS = 5


def break_when_closed(transport: asyncio.BaseTransport, wanted: bool = True) -> None:
    """Let the end of a connection, whoever brings it about, be a reset: nothing is kept for a client, who cannot take
    what it has for the whole."""
    linger = struct.pack("ii", wanted, 0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


class Watch:
    """Looks whether a client takes what was written for it, a few times in STALL_SECONDS; cuts it off if it does not.

    What has been written and not taken is in the transport or in the kernel. There is nothing to look at as long as
    answers are small, or taken at once.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop = loop
        self._transport = transport
        self._timer: asyncio.TimerHandle | None = None
        self._written = self._unwatched = 0
        self._taken = 0
        self._quiet = 0

    def wrote(self, size: int) -> None:
        """Take note of so many bytes that were written."""
        self._written += size
        self._unwatched += size
        if self._timer is None and self._unwatched > SLICE_BYTES:
            self._taken, self._quiet = self._written - self._waiting(), 0
            self._look_again()

    def end(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_again(self) -> None:
        self._timer = self._loop.call_later(STALL_SECONDS / _LOOKS, self._look)

    def _look(self) -> None:
        self._timer = None
        waiting = self._waiting()
        taken = self._written - waiting
        if not waiting:
            self._unwatched = 0
            return
        self._quiet = 0 if taken > self._taken else self._quiet + 1
        self._taken = taken
        if self._quiet < _LOOKS:
            self._look_again()
            return
        metrics.CLIENTS_CUT.inc()
        break_when_closed(self._transport)
        self._transport.abort()

    def _waiting(self) -> int:
        """How many bytes are in the transport, and in the kernel where it tells (Linux, tcp(7): SIOCOUTQ)."""
        waiting = self._transport.get_write_buffer_size()
        with suppress(OSError, ValueError):
            number = self._transport.get_extra_info("socket").fileno()
            waiting += struct.unpack("i", fcntl.ioctl(number, termios.TIOCOUTQ, bytes(4)))[0]
        return waiting


class SlicingWriter(StreamWriter):
    """Writes an answer in slices, however large the pieces are that it is given."""

    def __init__(self, plain: StreamWriter, watch: Watch) -> None:
        super().__init__(plain.protocol, plain.loop)
        self._watch = watch

    async def write(
        self,
        chunk: Piece,
        *,
        drain: bool = True,
        LIMIT: int = SLICE_BYTES,  # noqa: N803  # aiohttp calls it so
    ) -> None:
        """Write a piece; returns when all but its end is on its way."""
        rest = await self._but_for_the_end(chunk)
        await super().write(rest, drain=drain, LIMIT=LIMIT)

    async def write_eof(self, chunk: bytes = b"") -> None:
        """Write the last piece."""
        await super().write_eof(bytes(await self._but_for_the_end(chunk)))

    async def _but_for_the_end(self, chunk: Piece) -> Piece:
        """Write all but the last slice of a piece, and return that one."""
        start = 0
        if len(chunk) > SLICE_BYTES:
            chunk = memoryview(chunk)
            while start + SLICE_BYTES < len(chunk):
                self._watch.wrote(SLICE_BYTES)
                await super().write(chunk[start : start + SLICE_BYTES], drain=False)
                await self.drain()
                start += SLICE_BYTES
            chunk = chunk[start:]
        self._watch.wrote(len(chunk))
        return chunk
