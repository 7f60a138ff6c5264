"""The metrics as text, made at most once a second however many ask, in a thread and not on the event loop."""

import asyncio
import gzip
import re
from collections.abc import Iterator, Sequence
from time import monotonic

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from gembackend.plumbing.metrics import REGISTRY

KEPT_SECONDS = 1.0

_OPENMETRICS = "application/openmetrics-text"
_QUALITY = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


class Exposition:
    """The texts of a registry, each in its format and coding, and shared by all who ask for it."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        self._made: dict[tuple[bool, bool], tuple[float, asyncio.Task[bytes]]] = {}

    async def scrape(self, request: web.Request) -> web.Response:
        """Every metric, as Prometheus text or as OpenMetrics, whichever is asked for; at most a second old."""
        modern = prefers_openmetrics(request.headers.getall(hdrs.ACCEPT, []))
        packed = takes_gzip(request.headers.getall(hdrs.ACCEPT_ENCODING, []))
        headers = {
            hdrs.CONTENT_TYPE: openmetrics.CONTENT_TYPE_LATEST if modern else CONTENT_TYPE_PLAIN_0_0_4,
            hdrs.VARY: "Accept, Accept-Encoding",
        }
        if packed:
            headers[hdrs.CONTENT_ENCODING] = "gzip"
        # Shielded: one who leaves does not take the text along for which others wait.
        return web.Response(body=await asyncio.shield(self._text(modern, packed)), headers=headers)

    def _text(self, modern: bool, packed: bool) -> "asyncio.Task[bytes]":
        """The text of this second, in the making or made."""
        begun, task = self._made.get((modern, packed), (0.0, None))
        failed = task is not None and task.done() and (task.cancelled() or task.exception() is not None)
        if task is None or failed or monotonic() >= begun + KEPT_SECONDS:
            task = asyncio.create_task(self._make(modern, packed), name="metrics")
            self._made[modern, packed] = monotonic(), task
        return task

    async def _make(self, modern: bool, packed: bool) -> bytes:
        if packed:
            return await asyncio.to_thread(gzip.compress, await self._text(modern, False), 1)
        return await asyncio.to_thread(openmetrics.generate_latest if modern else generate_latest, self._registry)


def prefers_openmetrics(accept: Sequence[str]) -> bool:
    """Whether these Accept headers ask for OpenMetrics 1.0; whatever else they say gets Prometheus text.

    No name of ours needs escaping, so the scheme that is asked for makes no difference.
    """
    modern, plain = 0.0, dict.fromkeys(("text/plain", "text/*", "*/*"), None)
    for media, options, quality in _listed(accept):
        if media == _OPENMETRICS and options.get("version", "1.0.0") == "1.0.0":
            modern = max(modern, quality)
        elif media in plain:
            plain[media] = max(plain[media] or 0.0, quality)
    return modern > 0 and modern >= next((quality for quality in plain.values() if quality is not None), 0.0)


def takes_gzip(accept_encoding: Sequence[str]) -> bool:
    """Whether these Accept-Encoding headers name gzip."""
    return any(coding == "gzip" and quality > 0 for coding, _, quality in _listed(accept_encoding))


def _listed(headers: Sequence[str]) -> Iterator[tuple[str, dict[str, str], float]]:
    """What headers list, with its parameters and its quality (RFC 9110, 12.4.2), which is 0 when it makes no sense."""
    for item in ",".join(headers).split(","):
        name, *options = (part.strip() for part in item.split(";"))
        pairs = (option.partition("=") for option in options)
        given = {key.strip().lower(): value.strip().strip('"') for key, _, value in pairs}
        quality = given.get("q", "1")
        yield name.lower(), given, float(quality) if _QUALITY.fullmatch(quality) else 0.0
