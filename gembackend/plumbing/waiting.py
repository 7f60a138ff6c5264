"""Waiting for what may not come."""

import asyncio


async def within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event at most so long; tells whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
