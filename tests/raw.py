"""HTTP over raw sockets: requests that no client library sends, and answers taken apart."""

import asyncio
import json

from gembackend.web.server import HttpServer


class RawServer:
    """A running listener and raw access to it."""

    def __init__(self, http: HttpServer) -> None:
        self.http = http
        self.port = int(http.url.rsplit(":", 1)[1])

    async def raw(self, *pieces: bytes, ends: bool = False) -> bytes:
        """Send bytes and read until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if ends:
                writer.write_eof()
            async with asyncio.timeout(5):
                return await reader.read()
        finally:
            writer.close()

    async def get(self, path: str, *headers: str, method: str = "GET", content: bytes = b"") -> "Reply":
        """One request on a connection of its own."""
        lines = [f"{method} {path} HTTP/1.1", "Host: test", "Connection: close", *headers]
        if content:
            lines += [f"Content-Length: {len(content)}", "Content-Type: application/json"]
        return Reply(await self.raw("\r\n".join(lines).encode("latin1") + b"\r\n\r\n" + content))


class Reply:
    """An answer taken apart."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.content = raw.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin1").split("\r\n")
        self.status = int(status.split()[1])
        self.headers = dict(line.split(": ", 1) for line in lines)

    @property
    def code(self) -> str:
        assert self.headers["Content-Type"] == "application/problem+json", self.content
        document = json.loads(self.content)
        assert document["status"] == self.status
        assert document["request_id"] == self.headers["X-Request-ID"]
        return str(document["code"])
