"""What a loop is told by gRPC about the calls of a loop that is closed is no fault of the test it runs."""

import asyncio
import socket
from typing import Any

import grpc
import pytest

from tests import loops


async def begin(port: int) -> None:
    """Begin a call to somebody who says nothing, and leave it at that."""
    grpc.aio.insecure_channel(f"127.0.0.1:{port}").unary_unary("/a/b")(b"")
    await asyncio.sleep(0)


async def work_until(told: list[dict[str, Any]]) -> None:
    """Make calls that fail, until something is told."""
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel, asyncio.timeout(20):
        while not told:
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/a/b")(b"")


def test_how_the_call_of_a_closed_loop_ended_is_told_to_the_next_one_and_is_no_fault_of_it() -> None:
    told: list[dict[str, Any]] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        earlier = loops.new_loop()
        earlier.run_until_complete(begin(silent.getsockname()[1]))
        earlier.close()
    later = loops.new_loop()
    later.set_exception_handler(lambda _, context: told.append(context))
    later.run_until_complete(work_until(told))
    later.close()
    assert told and all(loops.late_word_of_grpc(context) for context in told)


def test_anything_else_is_a_fault() -> None:
    closed, other = RuntimeError("Event loop is closed"), RuntimeError("another")
    grpc = "Exception in callback <bound method PollerCompletionQueue._handle_events>"
    assert loops.late_word_of_grpc({"message": grpc, "exception": closed})
    assert not loops.late_word_of_grpc({"message": grpc, "exception": other})
    assert not loops.late_word_of_grpc({"message": grpc})
    assert not loops.late_word_of_grpc({"message": "Exception in callback ours", "exception": closed})
