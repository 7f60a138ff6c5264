"""What rude clients of a chaos run do, one round at a time. Each takes a `Street` and is called again and again."""

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

PATTERNS = ("a_a_a_", "~/~/", "a@b.c/", "-.-.", "1.2.", "日本", "é_", "x:/?", "<a b>", "::", "a-b_", "\u0e01\u0e02")
"""What text parsers take long over when it is said again and again."""
RUDE_END = " (rude)"
"""How their prompts end."""
UNREAD_SECONDS = 18.0
"""How long a client that never reads would hold on; the service cuts it sooner."""
LARGE_FILES = ("/docs/swagger-ui-bundle.js", "/openapi.json")


@dataclass(slots=True)
class Guest:
    """A user who is rude, with a room that is full of hostile texts and one in which prompts are asked."""

    token: str
    full: str
    asked: str
    turn: int = 0

    @property
    def headers(self) -> dict[str, str]:
        """What says who it is."""
        return {"Authorization": f"Bearer {self.token}"}


@dataclass(slots=True)
class Street:
    """Where the rude are at work: the processes' URLs as they are now, and what was done so far."""

    http: aiohttp.ClientSession
    guests: list[Guest]
    dice: random.Random
    urls: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    """Ids of prompts that were accepted, as far as anybody listened."""
    done: Counter[str] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)
    """How often which status was answered to those who waited for it."""

    @property
    def url(self) -> str:
        """Some process."""
        return self.dice.choice(self.urls)

    @property
    def guest(self) -> Guest:
        """Some rude user."""
        return self.dice.choice(self.guests)


def hostile(dice: random.Random, letters: int) -> str:
    """A text of so many characters that says one pattern, or a few, over and over."""
    pattern = "".join(dice.choices(PATTERNS, k=dice.choice((1, 1, 2, 5))))
    return (pattern * (letters // len(pattern) + 1))[:letters].strip()


async def search(street: Street) -> None:
    """Eight searches of one person at once, for phrases of what the texts are full of."""
    guest = street.guest

    async def one() -> None:
        text = quote(f'"{hostile(street.dice, street.dice.randrange(2, 150))}"')
        await _read(street, "GET", f"/v1/search?limit=200&q={text}", guest)

    await asyncio.gather(*(one() for _ in range(8)))
    street.done["searches"] += 8
    await asyncio.sleep(0.5)


async def ask(street: Street) -> None:
    """A hostile prompt, which is answered with more of that, in one of the rooms."""
    guest = street.guest
    text = _rude_prompt(street.dice, guest, street.dice.choice((50, 2_000, 7_900)))
    status, answer = await _read(street, "POST", f"/v1/chatroom/{guest.asked}/message", guest, {"prompt": text})
    if status == 202:
        street.told.append(answer["id"])
        street.done["prompts"] += 1
    await asyncio.sleep(street.dice.uniform(0.3, 1.0))


async def hang_up(street: Street) -> None:
    """A request whose client has gone before it is answered, or in the middle of the answer."""
    guest = street.guest
    waiting = {"Prefer": "wait=20"}
    method, path, headers, body = street.dice.choice(
        (
            ("GET", f"/v1/chatroom/{guest.asked}/message", waiting, None),
            ("GET", f"/v1/search?limit=200&q={quote(hostile(street.dice, 40))}", {}, None),
            ("GET", f"/v1/chatroom/{guest.full}/export", {}, None),
            ("GET", f"/v1/chatroom/{guest.full}/message/all?limit=200", {}, None),
            ("GET", f"/v1/chatroom/{guest.full}/events", {"Last-Event-ID": "0-0"}, None),
            ("POST", f"/v1/chatroom/{guest.asked}/message", waiting, {"prompt": _rude_prompt(street.dice, guest, 500)}),
        )
    )
    with suppress(TimeoutError):
        async with asyncio.timeout(street.dice.uniform(0.0, 0.3)):
            await _read(street, method, path, guest, body, **headers)
    street.done["hung up"] += 1
    await asyncio.sleep(0.3)


async def read_nothing(street: Street) -> None:
    """A connection over which large things are asked for, now and then many at once, and nothing is read."""
    guest = street.guest
    path = street.dice.choice(
        (
            *LARGE_FILES,
            f"/v1/chatroom/{guest.full}/export",
            f"/v1/chatroom/{guest.full}/message/all?limit=200",
            f"/v1/chatroom/{guest.full}/events",
        )
    )
    fields = [f"GET {path} HTTP/1.1", "Host: rude", f"Authorization: Bearer {guest.token}", "Last-Event-ID: 0-0"]
    requests = "\r\n".join([*fields, "", ""]).encode() * street.dice.choice((1, 1, 30))
    where, loop = urlsplit(street.url), asyncio.get_running_loop()
    with closing(socket.socket()) as line, suppress(TimeoutError):
        line.setblocking(False)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        street.done["read nothing"] += 1
        async with asyncio.timeout(UNREAD_SECONDS):
            await loop.sock_connect(line, (where.hostname, where.port))
            await loop.sock_sendall(line, requests)
            await asyncio.sleep(UNREAD_SECONDS)


async def read_slowly(street: Street) -> None:
    """A whole page, or a whole export, read as it comes."""
    guest = street.guest
    path = street.dice.choice((f"/v1/chatroom/{guest.full}/message/all?limit=200", f"/v1/chatroom/{guest.full}/export"))
    await _read(street, "GET", path, guest)
    street.done["large answers read"] += 1
    await asyncio.sleep(1.0)


async def scrape(street: Street) -> None:
    """Sixteen who want the metrics at once."""
    url = street.url

    async def one() -> None:
        async with street.http.get(f"{url}/metrics", headers={"Accept": "application/openmetrics-text"}) as answer:
            await answer.read()

    await asyncio.gather(*(one() for _ in range(16)))
    street.done["scrapes"] += 16
    await asyncio.sleep(1.0)


RUDE: tuple[tuple[int, Callable[[Street], Awaitable[None]]], ...] = (
    (2, search),
    (2, ask),
    (3, hang_up),
    (12, read_nothing),
    (1, read_slowly),
    (1, scrape),
)
"""How many clients do what at a time."""


def _rude_prompt(dice: random.Random, guest: Guest, letters: int) -> str:
    """A text that was never sent before; with no number at its end, because several clients ask in one room."""
    guest.turn += 1
    return f"{hostile(dice, letters)} {guest.turn} of {guest.asked}{RUDE_END}"


async def _read(
    street: Street, method: str, path: str, guest: Guest, body: object = None, **headers: str
) -> tuple[int, Any]:
    """A request and its answer, read to the end."""
    sent = guest.headers | {name.replace("_", "-"): value for name, value in headers.items()}
    async with street.http.request(method, street.url + path, json=body, headers=sent) as answer:
        raw = await answer.read()
        street.answers[answer.status] += 1
        small = answer.content_type.endswith("json") and len(raw) < 2**18
        return answer.status, await answer.json() if small else None
