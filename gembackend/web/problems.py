"""Every error of the service as one kind of document: RFC 9457 problem details."""

import msgspec
from aiohttp import hdrs, web

from gembackend.plumbing import metrics
from gembackend.plumbing.faults import Code, CodeName, Family, Fault, FieldError

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_SECONDS = 1
"""Told with a 429 or 503 whose fault does not say how long to wait."""

STATUSES = {
    Family.MALFORMED: 400,
    Family.UNAUTHORIZED: 401,
    Family.NOT_FOUND: 404,
    Family.METHOD: 405,
    Family.CONFLICT: 409,
    Family.TOO_LARGE: 413,
    Family.MEDIA_TYPE: 415,
    Family.INVALID: 422,
    Family.LIMITED: 429,
    Family.INTERNAL: 500,
    Family.UNAVAILABLE: 503,
}
"""The HTTP status of each kind of fault."""

_FROM_STATUS: dict[int, tuple[CodeName, str]] = {
    404: ("not_found", "There is nothing at this path."),
    405: ("method_not_allowed", "This path does not take that method; see the Allow header."),
    413: ("payload_too_large", "The body is too large."),
    415: ("unsupported_media_type", "The body must be JSON in UTF-8."),
}


class Problem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An error, as clients see it; `code` is the stable name to act on."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: tuple[FieldError, ...] = ()


def type_of(code: Code) -> str:
    """The URI that names a kind of problem; it leads nowhere."""
    return f"urn:gembackend:problem:{code.name}"


def status_of(code: Code) -> int:
    """The HTTP status that a fault with this code is told with."""
    return STATUSES[code.family]


def render(fault: Fault, request_id: str) -> web.Response:
    """The answer that tells a client of a fault, which is counted; its cause stays out."""
    code = fault.code
    metrics.HTTP_PROBLEMS.labels(code.name).inc()
    problem = Problem(
        type=type_of(code),
        title=code.title,
        status=status_of(code),
        detail=fault.detail,
        code=code.name,
        request_id=request_id,
        errors=fault.errors,
    )
    response = web.Response(body=msgspec.json.encode(problem), status=problem.status, content_type=PROBLEM_JSON)
    if code.family is Family.UNAUTHORIZED:
        response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    if code.family in (Family.LIMITED, Family.UNAVAILABLE):
        response.headers[hdrs.RETRY_AFTER] = str(max(1, fault.retry_after or RETRY_AFTER_SECONDS))
    return response


def render_http(error: web.HTTPException, request_id: str) -> web.Response:
    """The same for what aiohttp itself refuses: an unknown path, a wrong method, an odd Expect header."""
    code, detail = _FROM_STATUS.get(error.status, ("malformed_request", "The request cannot be understood."))
    response = render(Fault(code, detail), request_id)
    if hdrs.ALLOW in error.headers:
        response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
    return response


def internal_error() -> Fault:
    """What a client is told when the fault is ours."""
    return Fault("internal_error", "Something went wrong here; it has been logged under this request id.")
