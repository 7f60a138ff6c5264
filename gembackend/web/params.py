"""Typed values out of a request's path and headers."""

import re
from typing import Annotated
from uuid import UUID

from aiohttp import web
from msgspec import Meta

from gembackend.plumbing.faults import invalid, not_found
from gembackend.plumbing.ids import parse_id
from gembackend.web.routing import Parameter

MAX_WAIT_SECONDS = 30.0

_WAIT = re.compile(r'wait *= *(?:"([0-9]{1,9})"|([0-9]{1,9})) *(?:;.*)?', re.IGNORECASE)
_VISIBLE = re.compile(r"[\x21-\x7e]{1,255}")

PREFER = Parameter(
    "Prefer",
    "header",
    f"`wait=N` waits at most N seconds, and never more than {MAX_WAIT_SECONDS:g}; anything else is ignored (RFC 7240).",
    str,
    "wait=10",
)
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "header",
    "Makes it safe to send the same request again: one key is one prompt and one charge, for 24 hours.",
    Annotated[str, Meta(min_length=1, max_length=255, pattern="^[\\x21-\\x7e]+$")],
    None,
)
REQUEST_ID = Parameter(
    "X-Request-ID",
    "header",
    "An id of the client's own for this request: 1 to 128 letters, digits, `.`, `_` or `-`; another one is replaced.",
    str,
    "my-request-1",
)


def path_id(request: web.Request, name: str, what: str) -> UUID:
    """The id in the path; anything but a canonical UUID is as absent as a row that does not exist."""
    found = parse_id(request.match_info[name])
    if found is None:
        raise not_found(what)
    return found


def prefer_wait(request: web.Request) -> float | None:
    """The seconds of `Prefer: wait=N` (RFC 7240), at most 30; None without one, or with one that makes no sense."""
    for header in request.headers.getall("Prefer", []):
        for preference in header.split(","):
            if match := _WAIT.fullmatch(preference.strip()):
                return min(float(match[1] or match[2]), MAX_WAIT_SECONDS)
    return None


def preference_applied(request: web.Request) -> dict[str, str]:
    """The header that confirms a `Prefer: wait=N`, when there was one."""
    wait = prefer_wait(request)
    return {} if wait is None else {"Preference-Applied": f"wait={wait:g}"}


def idempotency_key(request: web.Request) -> str | None:
    """The `Idempotency-Key` header; raises a 422 unless it is 1-255 visible ASCII characters."""
    given = request.headers.getall("Idempotency-Key", [])
    if not given:
        return None
    if len(given) > 1 or not _VISIBLE.fullmatch(given[0]):
        raise invalid("Idempotency-Key", "must be one header of 1 to 255 visible ASCII characters")
    return given[0]
