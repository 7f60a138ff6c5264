"""The span of a request: OpenTelemetry's conventions for HTTP servers, less what could name a person.

The path, the query, the client's address and its user agent are left out; the route's template says enough.
"""

from aiohttp import web

from gembackend.plumbing import traces
from gembackend.web.middleware import known_method, request_id, template
from gembackend.web.routing import Handler

CLIENT_GONE = "client_gone"


@web.middleware
async def traced(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer one request inside a span, which continues the client's trace if it names one (W3C Trace Context)."""
    route, method = template(request), known_method(request)
    attributes = {
        "http.request.method": method or "_OTHER",
        "url.scheme": request.scheme,
        "network.protocol.version": f"{request.version.major}.{request.version.minor}",
        "gembackend.request.id": request_id(request),
    }
    name = method or "HTTP"
    if route is not None:
        attributes["http.route"] = route
        name = f"{name} {route}"
    given = request.headers.getall("traceparent", [])
    with traces.begin(name, "server", attributes, parent=given[0] if len(given) == 1 else None) as span:
        response = await handler(request)
        if request.transport is None:
            span.fail(CLIENT_GONE)
        else:
            span.set({"http.response.status_code": response.status})
            if response.status >= 500:
                span.fail(str(response.status))
    return response
