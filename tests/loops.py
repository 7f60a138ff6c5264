"""Event loops as the service uses them, which keep what their exception handlers are told."""

import asyncio
from typing import Any

import uvloop

faults: list[str] = []
"""What loops were told since it was last emptied, but for what is no fault of ours."""


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop that keeps what its exception handler is told."""
    loop = uvloop.new_event_loop()
    loop.set_exception_handler(_told)
    return loop


def _told(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not late_word_of_grpc(context):
        faults.append(repr(context))


def late_word_of_grpc(context: dict[str, Any]) -> bool:
    """Whether gRPC only failed to tell a loop that is closed by now how its calls or its server ended.

    gRPC has one queue of events for all loops of a process, which the loop of the next test empties; what is for the
    loop of the test before, when a busy machine was late with it, raises there, and nobody waits for it any more.
    (`PollerCompletionQueue._handle_events` in grpcio, the same as in github.com/oracle/coherence-py-client/issues/188.)
    The service has one loop as long as it lives.
    """
    error = context.get("exception")
    closed = isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
    return closed and "PollerCompletionQueue._handle_events" in context["message"]
