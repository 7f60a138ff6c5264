"""The description of the API as a document, and the page that shows it and tries it out.

The page is Swagger UI, which comes with the package: a browser needs nothing but this service.
"""

import asyncio
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import hdrs, web

from gembackend.plumbing.faults import not_found
from gembackend.web.openapi import describe
from gembackend.web.routing import Route

ASSETS = Path(__file__).with_name("docs_assets")

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_TYPES = {
    "start.js": "text/javascript",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
}


class DocRoutes:
    """/openapi.json and /docs; `routes` are all the others of the application, `prefix` the path below which browsers
    see them."""

    def __init__(self, routes: Sequence[Route], prefix: str = "") -> None:
        self._routes = routes
        self._prefix = prefix

    def table(self) -> list[Route]:
        """What is served where."""
        return [
            Route("GET", "/openapi.json", self.document, "This description", reply=dict[str, Any], session=False),
            Route("GET", "/docs", self.page, "The page that shows it", session=False, media=("text/html",)),
            Route(
                "GET",
                "/docs/{asset}",
                self.asset,
                "A file of that page",
                session=False,
                media=tuple(sorted(set(_TYPES.values()))),
            ),
        ]

    async def document(self, _request: web.Request) -> web.Response:
        """Describe every endpoint (OpenAPI 3.1)."""
        body = await asyncio.to_thread(lambda: self._document)
        return web.Response(body=body, content_type="application/json")

    async def page(self, request: web.Request) -> web.Response:
        """Show the description to a person, with a way to try it out."""
        # What the page names is named from its own address, which a slash at the end makes a directory.
        here = b"" if request.raw_path.partition("?")[0].endswith("/") else b"docs/"
        return web.Response(
            body=_file("index.html").replace(b"docs/", here),
            content_type="text/html",
            charset="utf-8",
            headers={hdrs.CONTENT_SECURITY_POLICY: CONTENT_SECURITY_POLICY},
        )

    async def asset(self, request: web.Request) -> web.Response:
        """A script or a style sheet of the page."""
        name = request.match_info["asset"]
        if name not in _TYPES:
            raise not_found("file")
        return web.Response(body=_file(name), content_type=_TYPES[name], charset="utf-8")

    @cached_property
    def _document(self) -> bytes:
        """Made when it is first asked for, which takes some tens of milliseconds."""
        return msgspec.json.encode(describe([*self._routes, *self.table()], self._prefix))


@cache
def _file(name: str) -> bytes:
    """A file of the page, read once: however many ask for it, it is in memory once."""
    return (ASSETS / name).read_bytes()
