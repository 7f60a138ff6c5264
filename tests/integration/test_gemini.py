"""The Gemini client against the stand-in, over Google's real protocol: every way a call can end becomes a value."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
import pytest_asyncio

from gembackend.embedded.gemini import Behaviour, GeminiStandIn
from gembackend.gemini.client import SYSTEM_INSTRUCTION, Gemini
from gembackend.gemini.faults import NO_CANDIDATE, UNSPECIFIED, Failure, Reply
from gembackend.prompts import outcome

KEY = "AIza-not-a-real-key"


@pytest_asyncio.fixture
async def server() -> AsyncIterator[GeminiStandIn]:
    standin = GeminiStandIn()
    await standin.start()
    yield standin
    await standin.stop()


class Streamed(Gemini):
    """Asks for streams; what was told on the way is what the reply says in the end."""

    async def generate(self, history: Any, prompt: str, *, last_attempt: bool, on_text: Any = None) -> Reply | Failure:
        told: list[str] = []
        value = await super().generate(history, prompt, last_attempt=last_attempt, on_text=on_text or told.append)
        if isinstance(value, Reply) and on_text is None:
            assert "".join(told) == value.text
        return value


@pytest_asyncio.fixture(params=[Gemini, Streamed])
async def gemini(request: pytest.FixtureRequest, server: GeminiStandIn) -> AsyncIterator[Gemini]:
    client = connect(server, kind=request.param)
    yield client
    await client.close()


def connect(
    server: GeminiStandIn,
    *,
    key: str = KEY,
    fallback: str | None = None,
    timeout: float = 10.0,
    kind: type[Gemini] = Gemini,
) -> Gemini:
    return kind(api_key=key, model="gemini-x", fallback_model=fallback, endpoint=server.url, timeout=timeout)


async def ask(client: Gemini, prompt: str = "Hello") -> Reply | Failure:
    return await client.generate([], prompt, last_attempt=False)


async def failure(client: Gemini, prompt: str = "Hello") -> Failure:
    value = await ask(client, prompt)
    assert isinstance(value, Failure)
    return value


async def reply(client: Gemini) -> Reply:
    value = await ask(client)
    assert isinstance(value, Reply)
    return value


async def test_a_prompt_goes_out_with_its_history_and_comes_back_as_a_reply(
    gemini: Gemini, server: GeminiStandIn
) -> None:
    server.script(Behaviour(text="Paris.", response_id="abc"))
    history = [("user", "Hi"), ("assistant", "Hello!")]

    value = await gemini.generate(history, "Capital of France?", last_attempt=False)

    assert isinstance(value, Reply)
    assert (value.response_id, value.text, value.finish_reason) == ("abc", "Paris.", "STOP")
    assert (value.block_reason, value.model) == (None, "gemini-x")
    assert value.prompt_tokens > value.reply_tokens > 0
    (call,) = server.calls
    assert call.contents == [("user", "Hi"), ("model", "Hello!"), ("user", "Capital of France?")]
    assert call.model == "models/gemini-x"
    assert call.system_instruction == SYSTEM_INSTRUCTION
    assert call.api_key == KEY
    assert call.deadline is not None
    assert 9.0 < call.deadline < 11.0


async def test_the_last_attempt_asks_the_fallback_model_if_there_is_one(server: GeminiStandIn) -> None:
    async with AsyncExitStack() as stack:
        for fallback in ("gemini-y", None):
            client = connect(server, fallback=fallback)
            stack.push_async_callback(client.close)
            for last in (False, True):
                await client.generate([], "Hello", last_attempt=last)
    models = [call.model.removeprefix("models/") for call in server.calls]
    assert models == ["gemini-x", "gemini-y", "gemini-x", "gemini-x"]


async def test_two_clients_in_one_process_keep_their_own_keys(gemini: Gemini, server: GeminiStandIn) -> None:
    other = connect(server, key="another-key")
    await ask(gemini)
    await ask(other)
    await other.close()
    assert [call.api_key for call in server.calls] == [KEY, "another-key"]


@pytest.mark.parametrize("status", [code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_every_status_is_a_failure_of_that_name_after_exactly_one_call(
    gemini: Gemini, server: GeminiStandIn, status: str
) -> None:
    server.default = Behaviour(status=status, retry_info=None)
    value = await failure(gemini)
    assert (value.status, value.retry_after) == (status, None)
    assert status in outcome.STATUSES
    assert server.arrived == (2 if isinstance(gemini, Streamed) and status == "UNIMPLEMENTED" else 1)


async def test_the_wait_that_gemini_asks_for_is_told(gemini: Gemini, server: GeminiStandIn) -> None:
    server.script(
        Behaviour(status="RESOURCE_EXHAUSTED", retry_info=12.5),
        Behaviour(status="UNAVAILABLE", retry_after="7"),
        Behaviour(status="UNAVAILABLE", retry_info=3.0, retry_after="9"),
        Behaviour(status="UNAVAILABLE", retry_after="Fri, 31 Dec 1999 23:59:59 GMT"),
    )
    assert [(await failure(gemini)).retry_after for _ in range(4)] == [12.5, 7.0, 9.0, None]


@pytest.mark.parametrize("details", [b"", b"\xff not protobuf", b"\x08\x03\x12\x05other"])
async def test_a_status_survives_details_that_are_garbled_or_say_something_else(
    gemini: Gemini, server: GeminiStandIn, details: bytes
) -> None:
    server.script(Behaviour(status="UNAVAILABLE", details=details))
    assert (await failure(gemini)).status == "UNAVAILABLE"


async def test_a_wrong_key_is_recognized_by_its_reason_though_google_calls_it_an_invalid_argument(
    gemini: Gemini, server: GeminiStandIn
) -> None:
    server.script(
        Behaviour(status="INVALID_ARGUMENT", reason="API_KEY_INVALID"),
        Behaviour(status="INVALID_ARGUMENT", reason="SOMETHING_ELSE"),
    )
    assert [(await failure(gemini)).status for _ in range(2)] == ["UNAUTHENTICATED", "INVALID_ARGUMENT"]


@pytest.mark.parametrize("reason", ["SERVICE_DISABLED", "", "my secret diary", "MY_SECRET\nDIARY", "A" * 64])
async def test_of_a_failure_nothing_is_told_but_a_status_and_a_word_for_its_reason(
    gemini: Gemini, server: GeminiStandIn, reason: str
) -> None:
    text = f"key {KEY} may not ask 'my secret d…' (my%20secret%20diary)"
    server.script(Behaviour(status="PERMISSION_DENIED", detail=text, reason=reason))
    told = reason if reason == "SERVICE_DISABLED" else ""
    assert await failure(gemini, "my secret diary") == Failure("PERMISSION_DENIED", None, told)


async def test_what_is_thought_before_the_answer_is_no_part_of_it(gemini: Gemini, server: GeminiStandIn) -> None:
    server.script(
        Behaviour(thoughts="Let me see.", text="Yes."), Behaviour(thoughts="Let me see.", text="", parts=False)
    )
    assert (await reply(gemini)).text == "Yes."
    assert (await reply(gemini)).text == ""


@pytest.mark.parametrize("kind", [Gemini, Streamed])
async def test_a_call_that_hangs_ends_with_its_time_and_is_closed_upstream(
    server: GeminiStandIn, kind: type[Gemini]
) -> None:
    client = connect(server, timeout=0.2, kind=kind)
    server.script(Behaviour(hang=True))
    assert (await failure(client)).status == "TIMEOUT"
    await server.wait_until(lambda: server.calls[0].cancelled)
    await client.close()


async def test_cancelling_closes_the_call_upstream(gemini: Gemini, server: GeminiStandIn) -> None:
    server.script(Behaviour(hang=True))
    asking = asyncio.create_task(ask(gemini))
    await server.wait_for_calls(1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await server.wait_until(lambda: server.calls[0].cancelled)


async def test_a_server_that_dies_in_the_middle_is_unavailable_and_found_again_when_it_is_back(
    gemini: Gemini, server: GeminiStandIn
) -> None:
    server.script(Behaviour(hang=True))
    asking = asyncio.create_task(ask(gemini))
    await server.wait_for_calls(1)
    port = int(server.url.rpartition(":")[2])
    await server.stop()
    value = await asking
    assert isinstance(value, Failure)
    assert value.status == "UNAVAILABLE"
    assert (await failure(gemini)).status == "UNAVAILABLE"

    await server.start(port)
    async with asyncio.timeout(5.0):
        while isinstance(await ask(gemini), Failure):
            pass


@pytest.mark.parametrize("text", [b"\xff\xfe", b"a lone surrogate: \xed\xa0\x80"])
async def test_a_reply_that_is_not_unicode_is_broken(gemini: Gemini, server: GeminiStandIn, text: bytes) -> None:
    server.script(Behaviour(text=text))
    assert (await failure(gemini)).status == "BROKEN"


async def test_a_prompt_that_is_not_unicode_is_an_invalid_argument_and_is_not_sent(
    gemini: Gemini, server: GeminiStandIn
) -> None:
    assert (await failure(gemini, "lone \ud800")).status == "INVALID_ARGUMENT"
    assert server.arrived == 0


async def test_a_reply_with_nul_arrives_as_it_is(gemini: Gemini, server: GeminiStandIn) -> None:
    server.script(Behaviour(text="a\x00b", response_id="i\x00d"))
    value = await reply(gemini)
    assert (value.text, value.response_id) == ("a\x00b", "i\x00d")


async def test_a_reply_may_lack_everything(gemini: Gemini, server: GeminiStandIn) -> None:
    server.script(Behaviour(candidates=False), Behaviour(parts=False), Behaviour(text="", response_id=""))
    values = [await reply(gemini) for _ in range(3)]
    assert [(value.text, value.finish_reason) for value in values] == [("", "NO_CANDIDATE"), ("", "STOP"), ("", "STOP")]
    assert values[2].response_id == ""


@pytest.mark.parametrize("finish", [name for name in outcome.FINISHES if name not in (NO_CANDIDATE, UNSPECIFIED)])
async def test_every_finish_reason_arrives_by_its_name(gemini: Gemini, server: GeminiStandIn, finish: str) -> None:
    server.script(Behaviour(finish_reason=finish))
    assert (await reply(gemini)).finish_reason == finish


@pytest.mark.parametrize("block", outcome.BLOCKS)
async def test_every_block_reason_arrives_by_its_name(gemini: Gemini, server: GeminiStandIn, block: str) -> None:
    server.script(Behaviour(block_reason=block))
    assert (await reply(gemini)).block_reason == block


@pytest.mark.filterwarnings("ignore:Unrecognized BlockReason:UserWarning")
async def test_a_reason_newer_than_the_sdk_has_a_name_too(gemini: Gemini, server: GeminiStandIn) -> None:
    server.script(Behaviour(finish_reason=99), Behaviour(block_reason=98))
    assert (await reply(gemini)).finish_reason == "UNKNOWN_99"
    assert (await reply(gemini)).block_reason == "UNKNOWN_98"


async def test_a_whole_reply_may_leave_its_finish_reason_out(server: GeminiStandIn) -> None:
    server.script(Behaviour(finish_reason=UNSPECIFIED))
    client = connect(server)
    assert (await reply(client)).finish_reason == UNSPECIFIED
    await client.close()


async def test_a_reply_is_told_piece_by_piece_while_it_comes(server: GeminiStandIn) -> None:
    client, told, first = connect(server), list[str](), asyncio.Event()
    server.script(Behaviour(text="one two three four", response_id="abc", pace=0.05))

    def hear(text: str) -> None:
        told.append(text)
        first.set()

    asking = asyncio.create_task(client.generate([], "Hello", last_attempt=False, on_text=hear))
    await first.wait()
    assert server.calls[0].finished is None
    value = await asking
    await client.close()
    assert isinstance(value, Reply)
    assert len(told) > 2
    assert (value.text, value.response_id, value.finish_reason) == ("".join(told), "abc", "STOP")
    assert (value.text, value.model) == ("one two three four", "gemini-x")
    assert value.prompt_tokens > 0 < value.reply_tokens


@pytest.mark.parametrize(("status", "told"), [("UNAVAILABLE", "UNAVAILABLE"), (None, "BROKEN")])
async def test_a_stream_that_breaks_off_is_a_failure_whatever_it_said_before(
    server: GeminiStandIn, status: str | None, told: str
) -> None:
    client = connect(server, kind=Streamed)
    server.script(Behaviour(text="one two three four", break_after=2, status=status))
    assert (await failure(client)).status == told
    await client.close()


async def test_what_cannot_stream_is_asked_for_the_whole(server: GeminiStandIn) -> None:
    server.rule(lambda call: Behaviour(status="UNIMPLEMENTED") if call.streaming else Behaviour(text="all at once"))
    client, told = connect(server), list[str]()
    value = await client.generate([], "Hello", last_attempt=False, on_text=told.append)
    await client.close()
    assert isinstance(value, Reply)
    assert (value.text, told) == ("all at once", [])


async def test_cancelling_closes_a_stream_in_the_middle(server: GeminiStandIn) -> None:
    client, first = connect(server), asyncio.Event()
    server.script(Behaviour(text="one two three four", pace=30.0))
    asking = asyncio.create_task(client.generate([], "Hi", last_attempt=False, on_text=lambda _: first.set()))
    await first.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await server.wait_until(lambda: server.calls[0].cancelled)
    await client.close()


async def test_the_check_says_what_is_wrong_or_nothing(gemini: Gemini, server: GeminiStandIn) -> None:
    assert await gemini.check(5.0) is None
    server.default = Behaviour(status="INVALID_ARGUMENT", reason="API_KEY_INVALID", detail=f"{KEY} is not valid")
    assert await gemini.check(5.0) == Failure("UNAUTHENTICATED", None, "API_KEY_INVALID")
    await server.stop()
    unreachable = await gemini.check(5.0)
    assert unreachable is not None
    assert unreachable.status == "UNAVAILABLE"


async def test_importing_the_client_says_nothing_on_the_terminal() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "default",
        "-c",
        "import gembackend.gemini.client",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert said == b""
    assert process.returncode == 0
