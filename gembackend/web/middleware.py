"""What surrounds every handler: request id, access line, metrics, headers, and faults turned into answers."""

import re
import secrets
import time

import structlog
from aiohttp import hdrs, web

from gembackend.plumbing import metrics, traces
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.logs import logger
from gembackend.web import problems
from gembackend.web.routing import Handler

EXEMPLAR_CHARS = 64
"""How much of a request id an exemplar shows; OpenMetrics allows 128 characters for names and values together."""
UNMATCHED = "unmatched"
"""The route of what matched none: it is all one, so that paths cannot make up labels."""
CLIENT_GONE = 499
"""What the access line says when nobody was there to take the answer."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID = web.RequestKey("request_id", str)
_STARTED = web.RequestKey("started", float)
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    hdrs.CACHE_CONTROL: "no-store",
    hdrs.SERVER: "gembackend",
}

log = logger(__name__)


@web.middleware
async def observed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer one request under its id, and account for it whatever happens."""
    structlog.contextvars.bind_contextvars(request_id=request_id(request))
    request[_STARTED] = time.perf_counter()
    status = CLIENT_GONE
    metrics.HTTP_IN_FLIGHT.inc()
    try:
        response = await _answer(request, handler)
        status = CLIENT_GONE if request.transport is None else response.status
        return response
    except ConnectionAbortedError:
        status = 500
        raise
    finally:
        _settle(request, status)


def dress(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Put on an answer the headers that every answer has."""
    response.headers.update(_HEADERS)
    response.headers["X-Request-ID"] = request_id(request)


def settle(request: web.Request) -> None:
    """Account now for a request whose answer has begun and goes on for as long as the client likes."""
    _settle(request, 200)


def request_id(request: web.BaseRequest) -> str:
    """The id of this request: the client's own if it is a sane one, else a new one."""
    if _REQUEST_ID not in request:
        given = request.headers.get("X-Request-ID", "")
        request[_REQUEST_ID] = given if _SANE_ID.fullmatch(given) else secrets.token_hex(16)
    return request[_REQUEST_ID]


def account(request: web.BaseRequest, route: str, status: int, seconds: float) -> None:
    """Write the access line of a request and count it; the labels are bounded, and the query is in neither."""
    known = known_method(request) or "OTHER"
    series = metrics.HTTP_SECONDS.labels(known, route, f"{status // 100}xx")
    exemplar = {"request_id": request_id(request)[:EXEMPLAR_CHARS]}
    if trace_id := traces.trace_id():
        exemplar["trace_id"] = trace_id
    series.observe(seconds, exemplar=exemplar)
    log.info("request", method=known, route=route, status=status, duration_ms=round(seconds * 1000, 2))


def known_method(request: web.BaseRequest) -> str | None:
    """The request's method, or None when it is one that a client made up."""
    return request.method if request.method in _METHODS else None


def template(request: web.Request) -> str | None:
    """The template of the route that matched, if one did."""
    resource = request.match_info.route.resource
    return None if resource is None else resource.canonical


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The handler's answer, or the problem document of what it raised."""
    try:
        return await handler(request)
    except Fault as error:
        if error.__cause__ is not None and problems.status_of(error.code) >= 500:
            log.warning("fault", fault=error.code.name, cause=type(error.__cause__).__qualname__)
        fault = error
    except web.HTTPException as error:
        return problems.render_http(error, request_id(request))
    except Exception as error:
        if request.transport is None or request.transport.is_closing():
            # The client went away, or was cut off, and reading or writing said so: there is nobody to answer, and
            # nothing is wrong.
            return web.Response(status=CLIENT_GONE)
        log.error("unexpected_error", exc_info=error)
        fault = problems.internal_error()
    if request.writer.output_size > 0:
        # Part of an answer is on its way; a second one would be read as its continuation.
        raise ConnectionAbortedError
    return problems.render(fault, request_id(request))


def _settle(request: web.Request, status: int) -> None:
    """Account for a request, once."""
    if (started := request.pop(_STARTED, None)) is not None:
        metrics.HTTP_IN_FLIGHT.dec()
        account(request, template(request) or UNMATCHED, status, time.perf_counter() - started)
