"""Answers to clients that read slowly or not at all, over raw sockets: what is held for them, and for how long."""

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest import mock

import pytest

from gembackend import config
from gembackend.plumbing.metrics import CLIENTS_CUT
from gembackend.web import connection, flow, sockets
from gembackend.web.connection import Connection
from gembackend.web.docs import ASSETS
from gembackend.web.server import HttpServer, build_app
from tests.processes import until

BUNDLE, SHEET = "swagger-ui-bundle.js", "swagger-ui.css"


async def nobody(_token: str) -> None:
    raise NotImplementedError


async def well() -> dict[str, str | None]:
    return {}


class Server:
    """A listener with the pages that every service has, and what it holds for its clients."""

    def __init__(self) -> None:
        app = build_app([], authenticate=nobody, health=well, settings=config.load({}, "dev"))
        self.http = HttpServer(app, host="127.0.0.1", port=0)

    @property
    def transports(self) -> list[asyncio.Transport]:
        """The open connections."""
        server = self.http._runner.server
        assert server is not None
        open_ones = [each for each in server.connections if isinstance(each, Connection)]
        return [each.transport for each in open_ones if each.transport is not None]

    def held(self) -> list[int]:
        """How many bytes wait for each client, in the process and in the kernel."""
        return [each.get_write_buffer_size() + _in_kernel(each) for each in self.transports]

    def client(self, *requests: bytes, reads: int | None = None) -> socket.socket:
        """A client that has sent requests and reads nothing by itself; `reads` bounds what its kernel takes."""
        made = socket.socket()
        if reads is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, reads)
        made.connect(("127.0.0.1", int(self.http.url.rsplit(":", 1)[1])))
        made.sendall(b"".join(requests))
        return made


def _in_kernel(transport: asyncio.Transport) -> int:
    number = transport.get_extra_info("socket").fileno()
    return int(struct.unpack("i", fcntl.ioctl(number, termios.TIOCOUTQ, bytes(4)))[0])


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: t", *headers, "", ""]).encode()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server()
    await server.http.start()
    try:
        yield server
    finally:
        await server.http.stop(0.1)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as started:
        yield started


async def test_what_is_held_for_clients_that_do_not_read_is_bounded(server: Server) -> None:
    """300 of them held 0.5 GB of one file."""
    clients = [server.client(get(f"/docs/{BUNDLE}") * 3, reads=4096) for _ in range(100)]

    async def all_stand_still() -> bool:
        return len(server.transports) == 100 and min(server.held()) > flow.SLICE_BYTES + sockets.SEND_BYTES

    await until(all_stand_still, "every client held up")
    assert max(each.get_write_buffer_size() for each in server.transports) <= 2 * flow.SLICE_BYTES + 1024
    # A file has 1.7 MB. The kernel doubles what it is told, and may be one slice beyond.
    assert max(server.held()) < 2 * flow.SLICE_BYTES + 2 * sockets.SEND_BYTES + flow.SLICE_BYTES
    for client in clients:
        client.close()


@pytest.mark.parametrize(
    "requests",
    {
        "a file": get(f"/docs/{BUNDLE}"),
        "a small file, which the kernel takes whole": get(f"/docs/{SHEET}"),
        "two pipelined": get(f"/docs/{BUNDLE}") * 2,
        "two small ones pipelined": get(f"/docs/{SHEET}") * 2,
        "many small answers": get("/openapi.json") * 20,
    }.items(),
    ids=lambda item: item[0],
)
async def test_a_client_that_does_not_read_is_cut_off(
    server: Server, monkeypatch: pytest.MonkeyPatch, requests: tuple[str, bytes]
) -> None:
    monkeypatch.setattr(flow, "STALL_SECONDS", 0.3)
    cut = CLIENTS_CUT._value.get()
    client = server.client(requests[1], reads=4096)

    async def begun() -> bool:
        return CLIENTS_CUT._value.get() == cut + 1 and not server.transports

    await until(begun, "the client cut off, and nothing held for it", 10)
    with client, pytest.raises(ConnectionResetError):
        all(iter(lambda: client.recv(65_536), b""))


async def test_a_client_that_reads_slowly_is_never_cut_off() -> None:
    """The clock and the transport are moved by hand: a little is read between two looks, and now and then nothing."""
    clock, transport = mock.Mock(), mock.Mock()
    transport.get_extra_info.return_value.fileno.side_effect = OSError  # the kernel says nothing
    watch = flow.Watch(clock, transport)

    def looks(*waiting: int) -> None:
        for transport.get_write_buffer_size.return_value in waiting:
            clock.call_later.call_args.args[1]()

    transport.get_write_buffer_size.return_value = 200_000
    watch.wrote(200_000)
    looks(199_999, 199_998, 199_998, 199_998, 199_998, 199_998, 199_000)
    watch.wrote(50_000)
    looks(248_999, 248_999, 248_999, 248_999, 248_999, 100_000)
    assert not transport.abort.called
    looks(*[100_000] * 4)
    assert not transport.abort.called
    looks(100_000)
    assert transport.abort.called


async def test_a_client_that_has_read_everything_may_be_idle(server: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.http.url.rsplit(":", 1)[1]))
    (served,) = await until(lambda: _connections(server), "connected")
    writer.write(get(f"/docs/{SHEET}"))
    await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly((ASSETS / SHEET).stat().st_size)
    assert served.watch._timer is not None
    served.watch.end()
    served.watch._look()
    assert served.watch._timer is None and served.transport is not None, "nothing is left to look at"
    writer.close()


async def test_half_a_request_behind_a_whole_one_has_no_more_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEADERS_SECONDS", 0.2)
    post = b"POST /livez HTTP/1.1\r\nHost: t\r\n"
    for whole in (
        get("/livez"),
        get("/livez") * 2,
        post + b"Content-Length: 2\r\n\r\n{}",
        post + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.http.url.rsplit(":", 1)[1]))
        writer.write(whole + b"GET /livez HTTP/1.1\r\nHo")
        async with asyncio.timeout(10):
            assert (await reader.read()).startswith(b"HTTP/1.1 ")
        writer.close()


async def test_between_whole_requests_there_is_time(server: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.http.url.rsplit(":", 1)[1]))
    (served,) = await until(lambda: _connections(server), "connected")
    post = b"POST /livez HTTP/1.1\r\nHost: t\r\n"
    for pieces in (
        [get("/livez")],
        [post + b"Content-Length: 2\r\n\r\n{}"],
        [post + b"Content-Length: 4\r\n\r\n{", b" ", b" }"],
        [post + b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\n{}\r\n", b"0\r\n\r\n"],
        [post + b"Content-Length: 400000\r\n\r\n", *[b" " * 100_000] * 4],
        [get("/livez")[:-2], b"\r\n"],
    ):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        await reader.readuntil(b"\r\n\r\n")
        await until(lambda: _idle(served), "idle")
        assert served._headers_timer is None, pieces
    writer.close()


async def _connections(server: Server) -> list[Connection]:
    running = server.http._runner.server
    assert running is not None
    return [each for each in running.connections if isinstance(each, Connection)]


async def _idle(served: Connection) -> bool:
    return served._waiter is not None and not served._messages
