"""Ends what does not depend on each other: what cannot be ended takes nothing else along."""

from collections.abc import Awaitable, Callable

from gembackend.plumbing import logs

log = logs.logger(__name__)


async def each_alone(*steps: Callable[[], Awaitable[object]]) -> None:
    """Take every step, one after the other, also when one fails, which is logged; a cancellation ends them all."""
    for step in steps:
        try:
            await step()
        except Exception:
            log.exception("stop_step_failed")
