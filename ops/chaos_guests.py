"""The rude clients of a chaos run, in a process of their own: `python -m ops.chaos_guests`, told what to do by stdin.

It gives way to everybody else (in a session of its own, which Linux schedules as one, with the least weight), and its
clients pause between what they do: what is measured is what they cost the service, and not how much of two cores a
load generator can take.
"""

import asyncio
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import aiohttp
import uvloop

from ops.chaos_apart import heard_lines
from ops.chaos_rude import RUDE, Guest, Street

NICENESS = 19
AUTOGROUP = Path("/proc/self/autogroup")
TELL_SECONDS = 1.0


def _give_way() -> None:
    """Run when nobody else would: niceness counts within a session, and between sessions if the kernel groups them."""
    os.nice(NICENESS)
    with suppress(OSError):
        AUTOGROUP.write_text(str(NICENESS))


async def _be_rude(street: Street, manner: Callable[[Street], Awaitable[None]]) -> None:
    """Be rude in one manner, again and again, whatever comes of it."""
    await asyncio.sleep(street.dice.uniform(0.0, 2.0))
    while True:
        with suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
            await manner(street)
        await asyncio.sleep(0.1)


async def _tell(street: Street) -> None:
    """Print every second which prompts were accepted and what was done since."""
    while True:
        await asyncio.sleep(TELL_SECONDS)
        told, street.told = street.told, []
        done, street.done = street.done, Counter()
        done.update({f"answered {status}": count for status, count in street.answers.items()})
        street.answers.clear()
        print(json.dumps({"told": told, "done": done}), flush=True)


async def _main() -> None:
    """The first line says who the guests are, the others where the service is now, and whether to be rude."""
    _give_way()
    lines = heard_lines()
    first = await anext(lines)
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as http:
        street = Street(http, [Guest(**guest) for guest in first["guests"]], random.Random(first["seed"]))
        telling = asyncio.create_task(_tell(street))
        at_work: list[asyncio.Task[None]] = []
        async for line in lines:
            street.urls = line["urls"]
            if line["at_work"] and not at_work:
                at_work = [
                    asyncio.create_task(_be_rude(street, manner)) for count, manner in RUDE for _ in range(count)
                ]
            elif at_work and not line["at_work"]:
                for task in at_work:
                    task.cancel()
                await asyncio.wait(at_work)
                at_work = []
        telling.cancel()
        for task in at_work:
            task.cancel()


if __name__ == "__main__":
    sys.exit(uvloop.run(_main()))
