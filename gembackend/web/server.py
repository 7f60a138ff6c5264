"""The application made of routes, and the listener that serves it."""

from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Middleware

from gembackend.config import Settings
from gembackend.web.connection import ConnectionServer
from gembackend.web.docs import DocRoutes
from gembackend.web.middleware import dress, observed
from gembackend.web.pages import Health, PageRoutes, metrics_route
from gembackend.web.routing import Route
from gembackend.web.session import Authenticate, guarded
from gembackend.web.tracing import traced

BACKLOG = 1024

ROUTES: web.AppKey[tuple[Route, ...]] = web.AppKey("routes")
"""Everything that an application serves."""


def build_app(
    routes: Iterable[Route], *, authenticate: Authenticate, health: Health, settings: Settings
) -> web.Application:
    """The rooms' routes and the service's own pages behind the session check and the middleware."""
    table = [*routes, *PageRoutes(health).table()]
    if settings.metrics_port is None:
        table.append(metrics_route())
    table.extend(DocRoutes(table).table())
    app = _application(traced, observed) if settings.traces_endpoint else _application(observed)
    app[ROUTES] = tuple(table)
    for route in table:
        handler = guarded(route.handler, authenticate) if route.session else route.handler
        if route.method == "GET":
            app.router.add_get(route.path, handler, allow_head=not route.stream)
        else:
            app.router.add_route(route.method, route.path, handler)
    return app


def metrics_app() -> web.Application:
    """The application of the separate metrics listener: /metrics and nothing else."""
    app = _application(observed)
    route = metrics_route()
    app.router.add_get(route.path, route.handler)
    return app


def _application(*middlewares: Middleware) -> web.Application:
    app = web.Application(middlewares=middlewares)
    app.on_response_prepare.append(_dress)
    return app


async def _dress(request: web.Request, response: web.StreamResponse) -> None:
    dress(request, response)


class HttpServer:
    """One listener; `stop` and `stop_accepting` may be called at any time and more than once."""

    def __init__(self, app: web.Application, *, host: str, port: int) -> None:
        self._host = host
        self._runner = _Runner(app, handle_signals=False)
        self._port = port

    @property
    def url(self) -> str:
        """Where to reach the listener from this machine, once it has started."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    async def start(self) -> None:
        """Listen; port 0 takes a free one. Raises OSError when the port is taken."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port, backlog=BACKLOG, reuse_address=True)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        self._port = site.port

    async def stop_accepting(self) -> None:
        """Close the listener and the idle connections; requests in flight go on."""
        for site in self._runner.sites:
            await site.stop()
        if self._runner.server is not None:
            self._runner.server.pre_shutdown()

    async def stop(self, grace: float) -> None:
        """Stop accepting, give requests in flight `grace` seconds, then cut what is left."""
        await self.stop_accepting()
        if self._runner.server is not None:
            # aiohttp waits this long twice: for the handler to end, then once more before it cancels it.
            await self._runner.server.shutdown(grace / 2)
        await self._runner.cleanup()


class _Runner(web.AppRunner):
    """An AppRunner whose connections are ours."""

    async def _make_server(self) -> web.Server:
        plain = await super()._make_server()
        return ConnectionServer(plain.request_handler, request_factory=plain.request_factory)
