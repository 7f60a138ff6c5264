"""Who is asking: the bearer token of a request, and the session it stands for."""

import re
from collections.abc import Awaitable, Callable
from typing import Protocol, cast
from uuid import UUID

from aiohttp import hdrs, web

from gembackend.plumbing.faults import Family, Fault
from gembackend.web.routing import Handler


class Session(Protocol):
    """What the rooms may know of a live session."""

    @property
    def user_id(self) -> UUID:
        """The user it belongs to."""
        ...

    @property
    def session_id(self) -> str:
        """Tells it from the user's other sessions."""
        ...


Authenticate = Callable[[str], Awaitable[Session]]
"""Turns a bearer token into a session, or raises Fault("unauthorized")."""

_SESSION = web.RequestKey("session", object)
_TOKEN = web.RequestKey("token", str)
_AUTHENTICATE = web.RequestKey("authenticate", object)
# RFC 6750, section 2.1; the scheme's name is case-insensitive (RFC 9110, section 11.1).
_BEARER = re.compile(r"bearer +([A-Za-z0-9\-._~+/]{1,4096}=*)", re.IGNORECASE)


def guarded(handler: Handler, authenticate: Authenticate) -> Handler:
    """The handler behind a session check."""

    async def checked(request: web.Request) -> web.StreamResponse:
        request[_TOKEN], request[_AUTHENTICATE] = _bearer_token(request), authenticate
        request[_SESSION] = await authenticate(request[_TOKEN])
        return await handler(request)

    return checked


def session_of(request: web.Request) -> Session:
    """The session of a request to a guarded route."""
    return cast(Session, request[_SESSION])


async def session_shown(request: web.Request, authenticate: Authenticate) -> Session | None:
    """The live session that a request shows although its route does not ask for one; None: it shows none that lives."""
    if hdrs.AUTHORIZATION not in request.headers:
        return None
    try:
        return await authenticate(_bearer_token(request))
    except Fault as fault:
        if fault.code.family is Family.UNAUTHORIZED:
            return None
        raise


async def renew_session(request: web.Request) -> None:
    """Check once more that the session of a long request lives; raises Fault as its first check would."""
    await cast(Authenticate, request[_AUTHENTICATE])(request[_TOKEN])


def _bearer_token(request: web.Request) -> str:
    given = request.headers.getall(hdrs.AUTHORIZATION, [])
    match = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
    if match is None:
        raise Fault("unauthorized", "This needs one Authorization header: Bearer and a token.")
    return match[1]
