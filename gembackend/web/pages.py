"""The pages that belong to no room: the service's own card, liveness, readiness and metrics."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec
from aiohttp import hdrs, web

from gembackend import __version__
from gembackend.plumbing.health import Trouble
from gembackend.plumbing.logs import logger
from gembackend.web.body import json_reply
from gembackend.web.exposition import Exposition
from gembackend.web.routing import Route

READY_SECONDS = 0.8
"""How long the checks of /readyz may take together; the answer is due within a second."""

Health = Callable[[], Awaitable[dict[str, Trouble | None]]]
"""Answers, for each thing the service stands on, None when it is well or what is the matter."""

log = logger(__name__)


class Check(msgspec.Struct, omit_defaults=True):
    """The state of one thing the service stands on."""

    ok: bool
    detail: str | None = None


class Readiness(msgspec.Struct):
    """Whether requests may be sent here; when `degraded` they may, though something is slower or less exact."""

    status: Literal["ok", "degraded", "unavailable"]
    checks: dict[str, Check]


class Liveness(msgspec.Struct):
    """Says that the process answers."""

    status: str


class Card(msgspec.Struct):
    """What this service is and where its parts are."""

    name: str
    version: str
    links: dict[str, str]


_LINKS = {
    "documentation": "/docs",
    "description": "/openapi.json",
    "liveness": "/livez",
    "readiness": "/readyz",
}


class PageRoutes:
    """Routes that need no session and no room; `prefix` is the path below which browsers see them."""

    def __init__(self, health: Health, prefix: str = "") -> None:
        self._health = health
        links = {name: prefix + path for name, path in _LINKS.items()}
        self._card = Card(name="gembackend", version=__version__, links=links)

    def table(self) -> list[Route]:
        """What is served where."""
        return [
            Route("GET", "/v1/", self.card, "Name, version and links", reply=Card, session=False),
            Route("GET", "/livez", self.livez, "Whether the process answers", reply=Liveness, session=False),
            Route(
                "GET",
                "/readyz",
                self.readyz,
                "Whether requests may be sent here",
                reply=Readiness,
                session=False,
                also=(503,),
            ),
        ]

    async def card(self, _request: web.Request) -> web.Response:
        """Say what this is."""
        return json_reply(self._card)

    async def livez(self, _request: web.Request) -> web.Response:
        """Answer, touching nothing."""
        return json_reply(Liveness("ok"))

    async def readyz(self, _request: web.Request) -> web.Response:
        """List each check; 503 when a serious one fails or when they take too long."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                troubles = await self._health()
        except Exception as error:
            log.warning("readiness_undecided", exc_info=error)
            troubles = {"checks": Trouble("did not answer in time" if isinstance(error, TimeoutError) else "failed")}
        checks = {name: _check(trouble) for name, trouble in troubles.items()}
        if any(trouble and trouble.serious for trouble in troubles.values()):
            return json_reply(Readiness("unavailable", checks), status=503, headers={hdrs.RETRY_AFTER: "1"})
        return json_reply(Readiness("degraded" if any(troubles.values()) else "ok", checks))


def _check(trouble: Trouble | None) -> Check:
    return Check(ok=True) if trouble is None else Check(ok=False, detail=trouble.reason)


def metrics_route() -> Route:
    """The route of /metrics, on the main listener or on one of its own."""
    media = ("text/plain", "application/openmetrics-text")
    return Route("GET", "/metrics", Exposition().scrape, "Metrics for Prometheus", session=False, media=media)
