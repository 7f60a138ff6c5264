"""Somebody else in a chaos run: `python -m ops.chaos_probe` asks, reads and lists all the time and times each answer.

It has a process of its own, so that it measures the service and not how busy the run's own event loop is, and it
pauses between two requests, so that it is no load to speak of.
"""

import asyncio
import json
import sys
import time

import aiohttp
import uvloop

from ops.chaos_apart import heard_lines

PROBE = "probe "
"""How its prompts begin; Gemini always takes the same time over them."""
ASK, READ, LIST = "POST message", "GET /v1/user/me", "GET /v1/chatroom"
KINDS = (ASK, READ, LIST)
PAUSE_SECONDS = 0.03
PATIENCE_SECONDS = 5.0


class Probe:
    """Its requests go to each process in turn."""

    def __init__(self, http: aiohttp.ClientSession, token: str, room: str) -> None:
        self.urls: list[str] = []
        self._http = http
        self._headers = {"Authorization": f"Bearer {token}"}
        self._room = room
        self._turn = 0

    async def ask(self) -> None:
        """Prompts, one after another, each waited for; the same one again until it is accepted."""
        number = 0
        while True:
            text = f"{PROBE}text {number}"
            headers = {"Prefer": "wait=4", "Idempotency-Key": text.replace(" ", "-")}
            path = f"/v1/chatroom/{self._room}/message"
            number += await self._timed(ASK, "POST", path, {"prompt": text}, headers)

    async def read(self, kind: str) -> None:
        """What `kind` says, over and over."""
        method, path = kind.split()
        while True:
            await self._timed(kind, method, path)

    async def _timed(
        self, kind: str, method: str, path: str, body: object = None, more: dict[str, str] | None = None
    ) -> bool:
        """Make a request and print how it went; tells whether it was done."""
        self._turn += 1
        url, begun, status, told = self.urls[self._turn % len(self.urls)] + path, time.monotonic(), 0, None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                headers = self._headers | (more or {})
                async with self._http.request(method, url, json=body, headers=headers) as answer:
                    document = await answer.json(content_type=None)
                    status, told = answer.status, document["id"] if kind == ASK and answer.status < 300 else None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            status = 0
        took = time.monotonic() - begun
        done = status in (200, 202)
        line = {"kind": kind, "begun": begun, "took": took, "done": done, "told": told}
        print(json.dumps(line), flush=True)
        await asyncio.sleep(PAUSE_SECONDS)
        return done


async def _main() -> None:
    """The first line says who asks and where, the others where the service is now."""
    lines = heard_lines()
    first = await anext(lines)
    async with aiohttp.ClientSession() as http:
        probe = Probe(http, first["token"], first["room"])
        probe.urls = first["urls"]
        at_work = [asyncio.create_task(work) for work in (probe.ask(), probe.read(READ), probe.read(LIST))]
        async for line in lines:
            probe.urls = line["urls"]
        for task in at_work:
            task.cancel()


if __name__ == "__main__":
    sys.exit(uvloop.run(_main()))
