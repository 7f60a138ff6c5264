"""JSON in and out: request bodies as typed models, replies as bytes.

A body is bounded in size, time, encoding and depth before a model sees it.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from gembackend.plumbing.faults import Fault, invalid
from gembackend.plumbing.models import Body
from gembackend.web.routing import Handler

BODY_SECONDS = 15.0
BODY_BYTES = 64 * 1024
ESCAPED_BYTES = 12
"""The most that JSON makes of one character: `\\ud83d\\ude00` is one."""
AROUND_BYTES = 1024
"""What may surround a text in its body."""

_AT = re.compile(r"(?P<message>.*) - at `\$\.?(?P<field>.*)`", re.DOTALL)
_NAMED = re.compile(r"Object (?P<what>missing required|contains unknown) field `(?P<field>.*)`", re.DOTALL)


Model = TypeVar("Model", bound=msgspec.Struct)


class _Nothing(Body, frozen=True):
    """A body without members."""


def refusing_bodies(handler: Handler) -> Handler:
    """The handler of a route that takes no body, behind a check that there is none, or none that says anything."""

    async def checked(request: web.Request) -> web.StreamResponse:
        if request.can_read_body:
            raw = await read_bytes(request, limit=BODY_BYTES)
            if raw.strip():
                _check_media_type(request)
                _parsed(raw, _Nothing)
        return await handler(request)

    return checked


def bytes_for(characters: int) -> int:
    """The limit of a body that has a text of so many characters: no spelling of it is too long."""
    return max(BODY_BYTES, ESCAPED_BYTES * characters + AROUND_BYTES)


async def read_body(request: web.Request, model: type[Model], *, limit: int = BODY_BYTES) -> Model:
    """The request's JSON body as a model; raises Fault with the 400, 413, 415 or 422 that it deserves."""
    _check_media_type(request)
    raw = await read_bytes(request, limit=limit)
    if not raw.strip():
        raise Fault("malformed_json", "The body is empty; a JSON object is expected.")
    parsed = _parsed(raw, model)
    for field in parsed.__struct_fields__:
        value = getattr(parsed, field)
        if isinstance(value, str) and "\0" in value:
            raise invalid(field, "must not contain NUL characters")
    return parsed


async def read_bytes(request: web.Request, *, limit: int) -> bytes:
    """The raw body, at most `limit` bytes and arriving within BODY_SECONDS; compressed ones are refused."""
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower() != "identity":
        raise Fault("unsupported_media_type", "Compressed bodies are not accepted.")
    too_large = Fault("payload_too_large", f"The body may have at most {limit} bytes.")
    if (request.content_length or 0) > limit:
        raise too_large
    raw = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while chunk := await request.content.readany():
                raw += chunk
                if len(raw) > limit:
                    raise too_large
    except TimeoutError as error:
        raise Fault("malformed_request", f"The body did not arrive within {BODY_SECONDS:g} seconds.") from error
    except (HttpProcessingError, web.RequestPayloadError) as error:
        raise Fault("malformed_request", "The body is not framed as its headers say.") from error
    return bytes(raw)


def json_reply(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON answer; UUIDs become strings, and times RFC 3339 in UTC ending in Z."""
    return web.Response(
        body=msgspec.json.encode(value), status=status, headers=headers, content_type="application/json"
    )


def _parsed(raw: bytes, model: type[Model]) -> Model:
    try:
        return msgspec.json.decode(raw, type=model)
    except (ValueError, RecursionError) as error:
        raise _refusal(raw, error) from error


def _check_media_type(request: web.Request) -> None:
    declared = request.headers.getall(hdrs.CONTENT_TYPE, [])
    if len(declared) != 1 or request.content_type != "application/json":
        raise Fault("unsupported_media_type", "The body must be sent as application/json.")
    if (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        raise Fault("unsupported_media_type", "The body must be JSON in UTF-8.")


def _refusal(raw: bytes, error: Exception) -> Fault:
    """Why a body did not become its model: 400 if it is not JSON at all, else 422 naming the field."""
    try:
        document = json.loads(raw.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return Fault("malformed_json", "The body is not valid JSON.")
    text = str(error)
    if found := _NAMED.match(text):
        verdict = "is required" if found["what"].startswith("missing") else "is not a known field"
        return invalid(found["field"][:100], verdict)
    if found := _AT.match(text):
        message = found["message"].replace("`", "")
        return invalid(found["field"][:100], "does not have the right form" if "matching regex" in message else message)
    if isinstance(error, msgspec.ValidationError):
        return invalid("body", text.replace("`", ""))
    return invalid(_unwritable_field(document), "is not valid Unicode text")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _unwritable_field(document: Any) -> str:
    """The first member that UTF-8 cannot hold (a lone surrogate): msgspec refuses such a body as a whole."""
    for name, value in document.items() if isinstance(document, dict) else ():
        try:
            json.dumps({name: value}, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return str(name.encode(errors="replace").decode())[:100]
    return "body"
