"""A client of server-sent events, as https://html.spec.whatwg.org/multipage/server-sent-events.html describes one."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp

PATIENCE = 15.0
QUIET = 3.0
RECONNECT_SECONDS = 0.05
"""A client's pause before it comes back, as browsers make one; nothing is expected of it."""
ENDS = ("prompt.answered", "prompt.failed", "prompt.cancelled")


class RefusedError(Exception):
    """A stream was not opened: the status and the reply."""

    def __init__(self, status: int, reply: str) -> None:
        super().__init__(f"{status}: {reply}")
        self.busy = status in (429, 503)


@dataclass(frozen=True)
class Heard:
    """One event."""

    id: str
    name: str
    data: Any


class Listener:
    """One open stream; `heard` is everything so far."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.heard: list[Heard] = []
        self.comments = 0

    async def next(self) -> Heard | None:
        """The next event; None at the end of the stream."""
        fields: dict[str, str] = {}
        async for raw in self.response.content:
            line = raw.decode().removesuffix("\n")
            if line.startswith(":"):
                self.comments += 1
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                self.heard.append(Heard(fields["id"], fields["event"], json.loads(fields["data"])))
                return self.heard[-1]
            else:
                fields = {}
        return None

    async def until(self, *names: str, count: int = 1) -> list[Heard]:
        """Read until so many events with one of these names have come; gives all that were read."""
        first = len(self.heard)
        async with asyncio.timeout(PATIENCE):
            while count:
                event = await self.next()
                assert event is not None, f"the stream ended before {names}: {self.heard}"
                count -= event.name in names
        return self.heard[first:]

    async def rest(self) -> list[Heard]:
        """Read until the stream ends by itself."""
        first = len(self.heard)
        async with asyncio.timeout(PATIENCE):
            while await self.next() is not None:
                pass
        return self.heard[first:]


@asynccontextmanager
async def listening(
    base: str, room: str, token: str | None, last_event_id: str | None = None
) -> AsyncIterator[Listener]:
    """Listen to a room over a connection of its own."""
    headers = {"Authorization": f"Bearer {token}"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
    async with (
        aiohttp.ClientSession(base, timeout=aiohttp.ClientTimeout(total=120)) as http,
        http.get(f"/v1/chatroom/{room}/events", headers=headers) as response,
    ):
        if response.status != 200:
            raise RefusedError(response.status, await response.text())
        assert response.content_type == "text/event-stream"
        yield Listener(response)


def names(events: list[Heard]) -> list[str]:
    """The names, with one for any number of deltas in a row."""
    told = [event.name for event in events]
    return [name for number, name in enumerate(told) if name != "reply.delta" or told[number - 1 : number] != [name]]


def text_of(events: list[Heard]) -> str:
    """What the deltas behind the last `prompt.running` add up to."""
    text = ""
    for event in events:
        if event.name == "prompt.running":
            text = ""
        elif event.name == "reply.delta":
            text += event.data["text"]
    return text


async def follow(
    room: str, token: str, ends: Callable[[], int | None], choose: Callable[[], str], patience: Callable[[], int]
) -> list[Heard]:
    """Listen until so many prompts have ended (None: nobody knows yet), as a client on a bad line: it hangs up after
    `patience()` events, after QUIET seconds without any, and whenever it is cut off, and comes back with the last id
    it has, each time to the process at `choose()`."""
    heard: list[Heard] = []

    def over() -> bool:
        wanted = ends()
        return wanted is not None and sum(event.name in ENDS for event in heard) >= wanted

    while not over():
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            try:
                async with listening(choose(), room, token, heard[-1].id if heard else "0-0") as listener:
                    for _ in range(patience()):
                        async with asyncio.timeout(QUIET):
                            event = await listener.next()
                        if event is None:
                            break
                        heard.append(event)
                        if over():
                            break
            except RefusedError as refused:
                if not refused.busy:
                    raise
        await asyncio.sleep(RECONNECT_SECONDS)
    return heard


def stories(events: list[Heard]) -> dict[str, list[str]]:
    """What was told of each prompt, by its id: names of events, and deltas put together as `text: …`."""
    told: dict[str, list[str]] = {}
    for event in events:
        story = told.setdefault(event.data.get("prompt_id") or event.data["id"], [])
        if event.name != "reply.delta":
            story.append(event.name)
        elif story[-1].startswith("text: "):
            story[-1] += event.data["text"]
        else:
            story.append(f"text: {event.data['text']}")
    return told


def misheard(told: dict[str, list[str]], prompts: Iterable[tuple[str, str, str | None]]) -> list[str]:
    """Those of the prompts (id, status, reply) that a listener was not told of once, in order, and whole."""
    wrong = []
    for prompt_id, status, reply in prompts:
        story = told.get(prompt_id, [])
        last = ["prompt.running", f"text: {reply}", "prompt.answered"] if status == "answered" else [f"prompt.{status}"]
        once = sum(name in ENDS for name in story) == story.count("prompt.queued") == 1
        if not once or story[0] != "prompt.queued" or story[-len(last) :] != last:
            wrong.append(prompt_id)
    return wrong
