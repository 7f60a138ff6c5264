"""A stand-in for Gemini that speaks Google's own gRPC protocol, for `gembackend dev`, tests and chaos runs.

By itself: `python -m gembackend.embedded.gemini --port 50051 --latency 0.05-0.15 --fail 0.1` prints its URL and
serves until it is told to stop.
"""

import argparse
import asyncio
import random
import secrets
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import uvloop

from gembackend.embedded import gemini_wire as wire
from gembackend.embedded.gemini_wire import Behaviour, Call
from gembackend.plumbing.waiting import within

__all__ = ["Behaviour", "Call", "GeminiStandIn"]

Rule = Callable[[Call], Behaviour | None]

_SERVER_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 1000),
)
"""A port that is taken is an error, not shared; keepalive pings of a waiting client are welcome."""


class GeminiStandIn:
    """The server. What a call meets: the next of `script`, else the first rule that says something, else `default`.

    It knows every model but those in `unknown`, and those in `embedding` answer no prompts. `arrived` counts the
    generate calls, `calls` holds the latest `keep` of them in the order of arrival. An instance belongs to
    one event loop; it can be started again after a stop, on the same port too.
    """

    def __init__(self, default: Behaviour | None = None, *, keep: int = 5_000) -> None:
        self.default = default or Behaviour()
        self.unknown: set[str] = set()
        self.embedding: set[str] = set()
        self.calls: list[Call] = []
        self.arrived = 0
        self.url = ""
        self._keep = keep
        self._script: deque[Behaviour] = deque()
        self._rules: list[Rule] = []
        self._waiting: list[tuple[Callable[[], bool], asyncio.Event]] = []
        self._server: grpc.aio.Server | None = None

    async def start(self, port: int = 0) -> str:
        """Listen on 127.0.0.1 and return `grpc://127.0.0.1:PORT`; port 0 takes a free one.

        Raises `RuntimeError` when the port is taken.
        """
        server = grpc.aio.server(options=_SERVER_OPTIONS)
        server.add_generic_rpc_handlers(self._handlers())
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        self._server = server
        self.url = f"grpc://127.0.0.1:{bound}"
        return self.url

    async def stop(self) -> None:
        """Break every call off and stop listening; harmless when it is not running."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def script(self, *behaviours: Behaviour) -> None:
        """Treat the next calls like this, one each, in the order of their arrival."""
        self._script.extend(behaviours)

    def rule(self, choose: Rule) -> None:
        """Ask `choose` how to treat a call that no script is left for; None leaves it to the next rule."""
        self._rules.append(choose)

    async def wait_until(self, happened: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait until something is true that calls bring about; `TimeoutError` after `timeout` seconds."""
        if happened():
            return
        waiter = (happened, asyncio.Event())
        self._waiting.append(waiter)
        try:
            if not await within(waiter[1], timeout):
                raise TimeoutError
        finally:
            self._waiting.remove(waiter)

    async def wait_for_calls(self, count: int, timeout: float = 10.0) -> None:
        """Wait until so many calls have arrived in all; `TimeoutError` after `timeout` seconds."""
        await self.wait_until(lambda: self.arrived >= count, timeout)

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        package = "google.ai.generativelanguage.v1beta"
        request = wire.REQUEST.FromString
        generate = {
            "GenerateContent": grpc.unary_unary_rpc_method_handler(self._generate, request),
            "StreamGenerateContent": grpc.unary_stream_rpc_method_handler(self._stream, request),
        }
        models = {"GetModel": grpc.unary_unary_rpc_method_handler(self._model, wire.MODEL_REQUEST.FromString)}
        return (
            grpc.method_handlers_generic_handler(f"{package}.GenerativeService", generate),
            grpc.method_handlers_generic_handler(f"{package}.ModelService", models),
        )

    async def _generate(self, request: Any, context: Any) -> bytes:
        async with self._recorded(request, context, streaming=False) as call:
            behaviour = await self._meet(call)
            if behaviour.status is not None:
                await context.abort(*wire.failure(behaviour))
            return wire.whole(wire.answer(behaviour, call, secrets.token_urlsafe(16)))

    async def _stream(self, request: Any, context: Any) -> AsyncIterator[bytes]:
        async with self._recorded(request, context, streaming=True) as call:
            behaviour = await self._meet(call)
            if behaviour.status is None or behaviour.break_after is not None:
                for chunk in wire.chunks(wire.answer(behaviour, call, secrets.token_urlsafe(16))):
                    yield chunk
                    await asyncio.sleep(behaviour.pace)
            if behaviour.status is not None:
                await context.abort(*wire.failure(behaviour))

    async def _model(self, request: Any, context: Any) -> bytes:
        if self.default.status is not None:
            await context.abort(*wire.failure(self.default))
        name = request.name.removeprefix("models/")
        if name in self.unknown:
            await context.abort(*wire.failure(Behaviour(status="NOT_FOUND")))
        methods = ["embedContent" if name in self.embedding else "generateContent"]
        described: bytes = wire.MODEL(name=request.name, supported_generation_methods=methods).SerializeToString()
        return described

    async def _meet(self, call: Call) -> Behaviour:
        behaviour = self._choose(call)
        if behaviour.latency:
            await asyncio.sleep(behaviour.latency)
        if behaviour.hold is not None:
            await behaviour.hold.wait()
        if behaviour.hang:
            await asyncio.get_running_loop().create_future()
        return behaviour

    def _choose(self, call: Call) -> Behaviour:
        if self._script:
            return self._script.popleft()
        chosen = (choose(call) for choose in self._rules)
        return next((behaviour for behaviour in chosen if behaviour is not None), self.default)

    @asynccontextmanager
    async def _recorded(self, request: Any, context: Any, *, streaming: bool) -> AsyncIterator[Call]:
        loop = asyncio.get_running_loop()
        metadata = dict(context.invocation_metadata() or ())
        call = Call(
            model=request.model,
            contents=[(content.role, _text(content)) for content in request.contents],
            system_instruction=_text(request.system_instruction),
            api_key=metadata.get("x-goog-api-key"),
            deadline=context.time_remaining(),
            streaming=streaming,
            started=loop.time(),
        )
        self.arrived += 1
        self.calls.append(call)
        if len(self.calls) > self._keep:
            del self.calls[0]
        self._tell()
        try:
            yield call
        except asyncio.CancelledError:
            call.cancelled = True
            raise
        finally:
            call.finished = loop.time()
            self._tell()

    def _tell(self) -> None:
        for happened, waiter in self._waiting:
            if happened():
                waiter.set()


def _text(content: Any) -> str:
    return "".join(part.text for part in content.parts)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m gembackend.embedded.gemini", description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--latency", type=_range, default=(0.0, 0.0), help="seconds, or a range such as 0.05-0.15")
    parser.add_argument("--fail", type=float, default=0.0, help="share of calls that end UNAVAILABLE, such as 0.1")
    return parser.parse_args(arguments)


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    return float(low), float(high or low)


async def _main(options: argparse.Namespace) -> None:
    def chance(_: Call) -> Behaviour:
        failing = random.random() < options.fail  # noqa: S311
        latency = random.uniform(*options.latency)  # noqa: S311
        return Behaviour(latency=latency, status="UNAVAILABLE" if failing else None)

    standin = GeminiStandIn(keep=0)
    standin.rule(chance)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    sys.stdout.write(await standin.start(options.port) + "\n")
    sys.stdout.flush()
    await stopped.wait()
    await standin.stop()


if __name__ == "__main__":
    uvloop.run(_main(_parse(sys.argv[1:])))
