"""A route as a value: what the router, the session check and the API description need to know of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path.

    `body` and `reply` are the types of the JSON that goes in and out, `success` the usual status,
    `session` whether a bearer token is needed, `errors` the fault codes it may answer with, and
    `stream` whether the reply goes on for long (such a route has no HEAD).
    """

    method: str
    path: str
    handler: Handler
    summary: str
    body: type[msgspec.Struct] | None = None
    reply: Any = None
    success: int = 200
    session: bool = True
    errors: tuple[str, ...] = ()
    stream: bool = False
