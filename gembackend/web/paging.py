"""Lists in pages: `limit` and an opaque `cursor` in, `next_cursor` out."""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Annotated

from aiohttp import web
from msgspec import Meta

from gembackend.plumbing.faults import invalid
from gembackend.web.routing import Parameter

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
MAX_CURSOR = 512

PAGING = (
    Parameter(
        "limit",
        "query",
        f"How many are wanted; {DEFAULT_LIMIT} unless told.",
        Annotated[int, Meta(ge=1, le=MAX_LIMIT)],
        20,
    ),
    Parameter(
        "cursor",
        "query",
        "The `next_cursor` of the page before; absent for the first one.",
        Annotated[str, Meta(min_length=1, max_length=MAX_CURSOR, pattern="^[A-Za-z0-9_-]+$")],
        None,
    ),
)
"""The parameters of a route that lists."""


@dataclass(frozen=True, slots=True)
class Page:
    """How many rows are wanted, and the key after which they start (None: at the beginning)."""

    limit: int
    cursor: str | None


def page_of(request: web.Request) -> Page:
    """The page a query asks for; raises a 422 on `limit` or `cursor`."""
    raw_limit, raw_cursor = request.query.get("limit"), request.query.get("cursor")
    limit = DEFAULT_LIMIT
    if raw_limit is not None:
        limit = int(raw_limit) if re.fullmatch(r"[0-9]{1,4}", raw_limit) else 0
        if not 1 <= limit <= MAX_LIMIT:
            raise invalid("limit", f"must be a whole number from 1 to {MAX_LIMIT}")
    return Page(limit, None if raw_cursor is None else _decode_cursor(raw_cursor))


def encode_cursor(key: str) -> str:
    """A key as an opaque cursor."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _decode_cursor(cursor: str) -> str:
    try:
        if len(cursor) > MAX_CURSOR or not re.fullmatch(r"[A-Za-z0-9_-]+", cursor):
            raise ValueError
        key = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        if "\0" in key or encode_cursor(key) != cursor:
            raise ValueError
    except (ValueError, binascii.Error) as error:
        raise invalid("cursor", "is not a cursor that a list of this service gave") from error
    return key
