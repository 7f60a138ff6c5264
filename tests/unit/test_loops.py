"""What a loop is told by gRPC about the calls of a loop that is closed is no fault of the test it runs."""

import asyncio
from typing import Any

from gembackend.embedded.gemini import GeminiStandIn
from gembackend.gemini.client import Gemini
from tests import loops


async def hurry() -> None:
    """Leave no call, client or server behind, but gRPC's threads may not have told of all their ends yet."""
    standin = GeminiStandIn()
    url = await standin.start()
    client = Gemini(api_key="key", model="model", fallback_model=None, endpoint=url, timeout=5)
    calls = [asyncio.create_task(client.generate([], "hi", last_attempt=False)) for _ in range(20)]
    await standin.wait_for_calls(1)
    await standin.stop()
    await client.close()
    await asyncio.gather(*calls, return_exceptions=True)


def test_what_grpc_has_to_tell_a_closed_loop_is_told_to_the_next_one_and_is_no_fault_of_it() -> None:
    told: list[dict[str, Any]] = []
    for _ in range(1000):
        loop = loops.new_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        loop.run_until_complete(hurry())
        loop.close()
        if told:
            break
    assert told, "gRPC keeps it to itself now: late_word_of_grpc is not needed any more"
    assert [context for context in told if not loops.late_word_of_grpc(context)] == []


def test_anything_else_is_a_fault() -> None:
    closed, other = RuntimeError("Event loop is closed"), RuntimeError("another")
    grpc = "Exception in callback <bound method PollerCompletionQueue._handle_events>"
    assert loops.late_word_of_grpc({"message": grpc, "exception": closed})
    assert not loops.late_word_of_grpc({"message": grpc, "exception": other})
    assert not loops.late_word_of_grpc({"message": grpc})
    assert not loops.late_word_of_grpc({"message": "Exception in callback ours", "exception": closed})
