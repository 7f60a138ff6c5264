"""A line to PostgreSQL: as long as the test wants it, with TLS at its far end if need be, or with nobody there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.certificates import server_side

_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


class Relay:
    """Takes TCP connections on 127.0.0.1 and passes them on to the socket of `database_url`.

    With a `certificate` (its directory) TLS is at the far end. Every round trip takes `round_trip` seconds, that of
    TCP's own handshake included. After `silence` bytes that come are kept back, and nothing answers. `taken` counts
    connections, `secured` those of them with TLS.
    """

    def __init__(self, database_url: str, *, round_trip: float = 0.0, certificate: Path | None = None) -> None:
        query = parse_qs(urlsplit(database_url).query)
        self._socket = f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"
        self._database = urlsplit(database_url).path
        self._delay = round_trip / 2
        self._open = asyncio.Event()
        self._open.set()
        self._writers: list[asyncio.StreamWriter] = []
        self._context = server_side(certificate) if certificate else None
        self.taken = self.secured = 0
        self.port = 0

    def url(self, **query: str) -> str:
        """How the service reaches the database by this line."""
        text = "&".join(f"{name}={value}" for name, value in query.items())
        return f"postgresql://postgres@127.0.0.1:{self.port}{self._database}" + (f"?{text}" if text else "")

    def silence(self) -> None:
        """Let nothing through any more, and close nothing."""
        self._open.clear()

    def speak(self) -> None:
        """Let through what has been kept back, and whatever comes."""
        self._open.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Relay"]:
        """Take connections until the block ends."""
        async with asyncio.TaskGroup() as self._tasks:
            far = await asyncio.start_server(self._far, "127.0.0.1", 0)
            self._far_port = far.sockets[0].getsockname()[1]
            near = await asyncio.start_server(self._near, "127.0.0.1", 0)
            self.port = near.sockets[0].getsockname()[1]
            try:
                yield self
            finally:
                near.close()
                far.close()
                self._open.set()
                for writer in self._writers:
                    writer.transport.abort()

    async def _near(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Our end of the line, which everything crosses, TLS's handshake too."""
        self.taken += 1
        onward = await asyncio.open_connection("127.0.0.1", self._far_port)
        self._join(reader, writer, *onward, delay=self._delay, first=2 * self._delay)

    async def _far(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The server's end."""
        try:
            begun = await reader.readexactly(8)
            if begun == _SSL_REQUEST and self._context is not None:
                writer.write(b"S")
                await writer.start_tls(self._context)
                self.secured += 1
                begun = b""
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            return
        onward = await asyncio.open_unix_connection(self._socket)
        onward[1].write(begun)
        self._join(reader, writer, *onward)

    def _join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        onward_reader: asyncio.StreamReader,
        onward_writer: asyncio.StreamWriter,
        *,
        delay: float = 0.0,
        first: float = 0.0,
    ) -> None:
        self._writers += [writer, onward_writer]
        self._tasks.create_task(self._pass_on(reader, onward_writer, delay, first))
        self._tasks.create_task(self._pass_on(onward_reader, writer, delay, 0.0))

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float, first: float
    ) -> None:
        """Let every piece arrive so much later; a piece does not wait for those before it to have arrived."""
        arriving: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        now = asyncio.get_running_loop().time

        async def deliver() -> None:
            while True:
                due, piece = await arriving.get()
                await asyncio.sleep(due - now())
                await self._open.wait()
                if not piece or writer.is_closing():
                    writer.close()
                    return
                writer.write(piece)

        delivery = self._tasks.create_task(deliver())
        began = now()
        try:
            while piece := await reader.read(65536):
                arriving.put_nowait((max(now(), began + first) + delay, piece))
        except OSError:
            pass
        arriving.put_nowait((now() + delay, b""))
        await delivery
