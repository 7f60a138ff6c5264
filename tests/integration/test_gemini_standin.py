"""The stand-in itself: what it says, how it streams, and that it can run by itself."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import pytest_asyncio
import uvloop
from google.protobuf.unknown_fields import UnknownFieldSet

from gembackend.embedded import gemini_wire as wire
from gembackend.embedded.gemini import Behaviour, GeminiStandIn
from gembackend.gemini.client import Gemini
from gembackend.gemini.faults import Failure, Reply


@pytest_asyncio.fixture
async def server() -> AsyncIterator[GeminiStandIn]:
    standin = GeminiStandIn()
    await standin.start()
    yield standin
    await standin.stop()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Gemini]:
    client = Gemini(api_key="key", model="gemini-x", fallback_model=None, endpoint=url, timeout=10.0)
    try:
        yield client
    finally:
        await client.close()


async def streamed(server: GeminiStandIn) -> tuple[list[Any], grpc.StatusCode]:
    """The chunks of one streamed call, and the status that it ended with."""
    request = wire.REQUEST(model="models/gemini-x", contents=[{"role": "user", "parts": [{"text": "Hello"}]}])
    chunks: list[Any] = []
    async with grpc.aio.insecure_channel(server.url.removeprefix("grpc://")) as channel:
        call = channel.unary_stream(
            "/google.ai.generativelanguage.v1beta.GenerativeService/StreamGenerateContent",
            request_serializer=wire.REQUEST.SerializeToString,
            response_deserializer=wire.RESPONSE.FromString,
        )(request)
        try:
            async for chunk in call:
                chunks.append(chunk)
        except grpc.aio.AioRpcError as error:
            return chunks, error.code()
        return chunks, await call.code()


async def test_the_answer_says_that_it_is_a_stand_in_and_what_it_was_given(server: GeminiStandIn) -> None:
    async with connected(server.url) as gemini:
        first = await gemini.generate([], "How are  you?", last_attempt=False)
        history = [("user", "How are you?"), ("assistant", "Fine, " + "thanks " * 40)]
        second = await gemini.generate(history, "And now?", last_attempt=False)
    assert isinstance(first, Reply)
    assert isinstance(second, Reply)
    assert "local stand-in for Gemini" in first.text
    assert "no GEMINI_API_KEY is set" in first.text
    assert "“How are you?”" in first.text
    assert "no earlier messages" in first.text
    assert "2 earlier messages as context, the last one beginning “Fine, thanks" in second.text
    assert len(second.text) < 400
    assert first.response_id != second.response_id
    assert first.response_id


async def test_a_stream_tells_usage_and_finish_reason_in_its_last_chunk_and_who_it_is_in_each(
    server: GeminiStandIn,
) -> None:
    server.script(Behaviour(text="one two three four", response_id="abc"))
    chunks, status = await streamed(server)
    assert status is grpc.StatusCode.OK
    assert len(chunks) > 2
    assert "".join(chunk.candidates[0].content.parts[0].text for chunk in chunks) == "one two three four"
    assert [chunk.candidates[0].finish_reason for chunk in chunks] == [0] * (len(chunks) - 1) + [1]
    assert [chunk.usage_metadata.total_token_count > 0 for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert {field.data for chunk in chunks for field in UnknownFieldSet(chunk)} == {b"abc"}
    assert server.calls[0].streaming


@pytest.mark.parametrize(("status", "code"), [("UNAVAILABLE", grpc.StatusCode.UNAVAILABLE), (None, grpc.StatusCode.OK)])
async def test_a_stream_can_break_midway(server: GeminiStandIn, status: str | None, code: grpc.StatusCode) -> None:
    server.script(Behaviour(break_after=1, status=status))
    chunks, ended = await streamed(server)
    assert len(chunks) == 1
    assert chunks[0].candidates[0].finish_reason == 0
    assert ended is code


async def test_a_script_comes_before_the_rules_and_those_before_the_default(server: GeminiStandIn) -> None:
    server.default = Behaviour(text="default")
    server.rule(lambda call: Behaviour(text="rule") if "rule" in call.prompt else None)
    server.script(Behaviour(text=lambda call: f"script: {call.prompt}"))
    async with connected(server.url) as gemini:
        values = [await gemini.generate([], text, last_attempt=False) for text in ("rule", "a rule", "else")]
    assert [value.text for value in values if isinstance(value, Reply)] == ["script: rule", "rule", "default"]


async def test_a_call_can_be_held_until_the_test_lets_it_go(server: GeminiStandIn) -> None:
    hold = asyncio.Event()
    server.script(Behaviour(hold=hold, text="at last"))
    async with connected(server.url) as gemini:
        asking = asyncio.create_task(gemini.generate([], "Hello", last_attempt=False))
        await server.wait_for_calls(1)
        (call,) = server.calls
        running = call.finished is None
        hold.set()
        value = await asking
    assert isinstance(value, Reply)
    assert value.text == "at last"
    assert running
    assert call.finished is not None
    assert not call.cancelled


async def test_waiting_for_calls_that_never_come_ends(server: GeminiStandIn) -> None:
    with pytest.raises(TimeoutError):
        await server.wait_for_calls(1, timeout=0.01)


async def test_only_the_latest_calls_are_kept() -> None:
    few = GeminiStandIn(keep=2)
    async with connected(await few.start()) as gemini:
        for text in "abc":
            await gemini.generate([], text, last_attempt=False)
    await few.stop()
    assert few.arrived == 3
    assert [call.prompt for call in few.calls] == ["b", "c"]


async def test_a_port_that_is_taken_is_refused(server: GeminiStandIn) -> None:
    with pytest.raises(RuntimeError):
        await GeminiStandIn().start(int(server.url.rpartition(":")[2]))


async def test_stopping_twice_or_before_a_start_is_harmless(server: GeminiStandIn) -> None:
    await GeminiStandIn().stop()
    await server.stop()
    await server.stop()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_it_works_under_either_event_loop(new_loop: Any) -> None:
    async def talk() -> Reply | Failure:
        standin = GeminiStandIn()
        async with connected(await standin.start()) as gemini:
            value = await gemini.generate([], "Hello", last_attempt=False)
        await standin.stop()
        return value

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert isinstance(runner.run(talk()), Reply)


async def test_it_runs_by_itself_until_it_is_told_to_stop() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gembackend.embedded.gemini", "--latency", "0.001-0.002", "--fail", "1.0"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    assert re.fullmatch(r"grpc://127\.0\.0\.1:\d+", url)
    async with connected(url) as gemini:
        value = await gemini.generate([], "Hello", last_attempt=False)
    assert isinstance(value, Failure)
    assert value.status == "UNAVAILABLE"
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
