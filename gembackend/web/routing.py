"""A route as a value: what the router, the session check and the API description need to know of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from aiohttp import web

from gembackend.plumbing.faults import CodeName

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter or a header that a route reads; `type` is what msgspec makes a schema of.

    There is no example where any would be wrong: a cursor that was never given, a key that was used before.
    """

    name: str
    where: Literal["query", "header"]
    description: str
    type: Any
    example: str | int | None
    required: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path.

    `body` and `reply` are the types of the JSON that goes in and out, `success` the usual status,
    `session` whether a bearer token is needed, `errors` the fault codes it may answer with beyond those
    that follow from the rest (web.openapi_errors), and `stream` whether the reply goes on for long (such a
    route has no HEAD). `raw_body` is the type of a body that the handler checks in its own way, `also` are
    other statuses with the same reply, `headers` the reply's own headers, `media` its types, `example` a reply
    that is text and has no model, `group` the heading under which people look for it. The description is the
    handler's docstring, unless `description` says more.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    body: type[msgspec.Struct] | None = None
    reply: Any = None
    success: int = 200
    session: bool = True
    errors: tuple[CodeName, ...] = ()
    stream: bool = False
    also: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    headers: tuple[str, ...] = ()
    media: tuple[str, ...] = ("application/json",)
    example: str | None = None
    raw_body: type[msgspec.Struct] | None = None
    group: str = "Service"
    description: str = ""

    @property
    def refuses_bodies(self) -> bool:
        """Whether a body has to be empty or `{}`; that of a GET, too, may be refused (RFC 9110, 9.3.1)."""
        return self.body is None and self.raw_body is None
