"""The application made of routes, and the listener that serves it."""

from collections.abc import Iterable

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from gembackend.config import Settings
from gembackend.plumbing.addresses import hosts, url_of
from gembackend.web import sockets
from gembackend.web.body import refusing_bodies
from gembackend.web.connection import ConnectionServer
from gembackend.web.docs import DocRoutes
from gembackend.web.middleware import dress, observed
from gembackend.web.pages import Health, PageRoutes, metrics_route
from gembackend.web.routing import Route
from gembackend.web.session import Authenticate, guarded
from gembackend.web.target import Targets
from gembackend.web.tracing import traced

BACKLOG = 1024

ROUTES: web.AppKey[tuple[Route, ...]] = web.AppKey("routes")
"""Everything that an application serves."""
TARGETS: web.AppKey[Targets] = web.AppKey("targets")
"""How its paths may be spelt."""


def build_app(
    routes: Iterable[Route], *, authenticate: Authenticate, health: Health, settings: Settings
) -> web.Application:
    """The rooms' routes and the service's own pages behind the session check and the middleware."""
    prefix = settings.path_prefix
    table = [*routes, *PageRoutes(health, prefix).table()]
    if settings.metrics_port is None:
        table.append(metrics_route())
    table.extend(DocRoutes(table, prefix).table())
    app = _application(table, [traced, observed] if settings.traces_endpoint else [observed], prefix)
    for route in table:
        handler = refusing_bodies(route.handler) if route.refuses_bodies else route.handler
        handler = guarded(handler, authenticate) if route.session else handler
        if route.method == "GET":
            app.router.add_get(route.path, handler, allow_head=not route.stream)
        else:
            app.router.add_route(route.method, route.path, handler)
    return app


def metrics_app() -> web.Application:
    """The application of the separate metrics listener: /metrics and nothing else."""
    route = metrics_route()
    app = _application([route], [observed])
    app.router.add_get(route.path, route.handler)
    return app


def _application(table: Iterable[Route], middlewares: Iterable[Middleware], prefix: str = "") -> web.Application:
    """An application for these routes, which browsers see below a prefix."""

    async def dressed(request: web.Request, response: web.StreamResponse) -> None:
        dress(request, response)
        if response.headers.get(hdrs.LOCATION, "").startswith("/"):
            response.headers[hdrs.LOCATION] = prefix + response.headers[hdrs.LOCATION]

    app = web.Application(middlewares=list(middlewares))
    app[ROUTES] = tuple(table)
    app[TARGETS] = Targets((route.path for route in app[ROUTES]), prefix)
    app.on_response_prepare.append(dressed)
    return app


class HttpServer:
    """One listener, on each of the comma-separated hosts; `stop` and `stop_accepting` may be called at any time and
    more than once."""

    def __init__(self, app: web.Application, *, host: str, port: int) -> None:
        self._hosts = hosts(host)
        self._runner = _Runner(app, handle_signals=False)
        self._port = port

    @property
    def url(self) -> str:
        """Where to reach the listener from this machine, once it has started."""
        return url_of(self._hosts[0], self._port)

    async def start(self) -> None:
        """Listen; port 0 takes a free one. Raises OSError when the port is taken."""
        bound = await sockets.bind(self._hosts, self._port)
        await self._runner.setup()
        try:
            for each in bound:
                await web.SockSite(self._runner, each, backlog=BACKLOG).start()
        except OSError:
            await self._runner.cleanup()
            for each in bound:
                each.close()
            raise
        self._port = bound[0].getsockname()[1]

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
        return ConnectionServer(await super()._make_server(), self.app[TARGETS])
