"""What a request asks for, as the router knows it, however proxies and people spell it."""

import re
from collections.abc import Iterable

from yarl import URL

_SLASHES = re.compile("/{2,}")


class Targets:
    """The paths that an application serves, and the prefix below which browsers see them (`/api`; empty for none).

    A proxy may strip the prefix or leave it. One that begins like a path of ours cannot be told from it, and has to be
    stripped by the proxy.
    """

    def __init__(self, paths: Iterable[str], prefix: str = "") -> None:
        known = set(paths)
        self._slashed = {path for path in known if path.endswith("/")}
        self._prefix = prefix if _first(prefix) not in {_first(path) for path in known} else ""

    def of(self, url: URL) -> URL:
        """The same URL without the prefix, doubled slashes, and a slash at the end that the route does not have.

        Nothing is decoded, and the query stays as it is.
        """
        given = url.raw_path
        if not given.startswith("/"):
            return url
        path = _SLASHES.sub("/", given) if "//" in given else given
        if self._prefix and f"{path}/".startswith(f"{self._prefix}/"):
            path = path[len(self._prefix) :]
        path = path.rstrip("/")
        if f"{path}/" in self._slashed or not path:
            path += "/"
        return url if path == given else url.with_path(path, encoded=True, keep_query=True)


def _first(path: str) -> str:
    """The first segment of a path."""
    return path.lstrip("/").partition("/")[0]
