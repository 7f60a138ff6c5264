"""Where Redis is, read out of its URL with everything that the URL may say and nothing that it may not.

redis-py takes any argument of its connections as a parameter of the URL, also those that the code depends on, and
ignores or keeps for the first connection what it cannot read. Here a URL is read whole, when the settings are.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from gembackend.plumbing import redis_tls
from gembackend.plumbing.values import Refused

PORT = 6379
SCHEMES = ("redis", "rediss", "unix")

_HOST = re.compile(r"[\w.~%:-]+")
_DATABASE = re.compile(r"[0-9]{1,6}")
_CLIENT_NAME = re.compile(r"[!-~]{1,100}")
_PARAMETER = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A server, by `host` and `port` or by the `path` of its socket, and what redis-py is told besides.

    `options` holds the login, the database's number, the client's name and, when `tls`, what belongs to that.
    """

    host: str
    port: int
    path: str | None
    tls: bool
    options: Mapping[str, Any] = field(repr=False)

    @property
    def where(self) -> str:
        """The server for a person to read, without its password."""
        if self.path is not None:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read(url: str) -> RedisAddress:
    """The address that a URL spells; raises Refused with what is wrong with it, which quotes nothing secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Refused("must be a URL: an IPv6 address in brackets, a password percent-encoded") from None
    if parts.scheme not in SCHEMES:
        raise Refused("must be a URL starting with redis:// or rediss:// or unix://")
    if parts.fragment or url.endswith("#"):
        raise Refused("must not have a # in it: a # in the password is written %23")
    options = _options(parts)
    options |= _login(parts, options)
    if parts.scheme == "unix":
        return RedisAddress("", 0, _socket(parts), tls=False, options=options)
    if (database := _database(parts.path)) is not None and options.setdefault("db", database) != database:
        raise Refused("must not name two databases, one behind the host and one as db")
    host, port = _server(parts)
    return RedisAddress(host, port, None, tls=parts.scheme == "rediss", options=options)


def _options(parts: SplitResult) -> dict[str, Any]:
    """What the URL says behind its question mark."""
    options: dict[str, Any] = {}
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise Refused("must be a URL whose parameters are percent-encoded UTF-8") from None
    for name, value in pairs:
        # Without its percent sign, a ? in a password makes a parameter of the rest: that is not to be quoted.
        if "@" in parts.query or not _PARAMETER.fullmatch(name):
            raise Refused("must be a URL without a ? in its password: a ? is written %3F, an @ %40")
        parse = _PARAMETERS.get(name)
        if parse is None:
            raise Refused(
                f"must not set {name}: gembackend decides that by itself, and takes db, username, password, "
                "client_name and what begins with ssl_"
            )
        if name in options:
            raise Refused(f"must not set {name} twice")
        if name.startswith("ssl_") and parts.scheme != "rediss":
            raise Refused(f"must start with rediss:// to set {name}: without TLS there are no certificates")
        options[name] = parse(name, value)
    if parts.scheme == "rediss":
        redis_tls.try_certificates(options)
    return options


def _login(parts: SplitResult, options: Mapping[str, Any]) -> dict[str, str]:
    """Who logs in, as it stands before the host."""
    login: dict[str, str] = {}
    for name, given in (("username", parts.username), ("password", parts.password)):
        if given:
            if name in options:
                raise Refused(f"must not name the {name} twice, before the host and as a parameter")
            try:
                login[name] = unquote(given, errors="strict")
            except UnicodeDecodeError:
                raise Refused(f"must be a URL whose {name} is percent-encoded UTF-8") from None
    return login


def _server(parts: SplitResult) -> tuple[str, int]:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise Refused(
            "must be a URL whose port is a number from 1 to 65535; in the password, / is written %2F, ? %3F and # %23"
        )
    host = unquote(parts.hostname or "")
    if not host:
        raise Refused("must be a URL that names a host: redis://host:6379/0")
    try:
        host.encode("idna")
    except UnicodeError:
        host = ""
    if not _HOST.fullmatch(host):
        raise Refused("must be a URL that names one host, as a name or an address")
    return host, PORT if port is None else port


def _socket(parts: SplitResult) -> str:
    """The path of the socket."""
    if parts.netloc.rpartition("@")[2] or not parts.path.startswith("/") or parts.path == "/":
        raise Refused("must name its socket by the whole path, behind three slashes: unix:///run/redis.sock?db=0")
    return unquote(parts.path)


def _database(path: str) -> int | None:
    number = path.strip("/")
    if not number:
        return None
    if not _DATABASE.fullmatch(number):
        raise Refused("must have nothing but the number of a database behind its host: redis://host:6379/0")
    return int(number)


def _number(name: str, value: str) -> int:
    if not _DATABASE.fullmatch(value):
        raise Refused(f"must set {name} to a number")
    return int(value)


def _client_name(name: str, value: str) -> str:
    if not _CLIENT_NAME.fullmatch(value):
        raise Refused(f"must set {name} to ASCII without spaces")
    return value


_PARAMETERS: dict[str, Callable[[str, str], Any]] = {
    "db": _number,
    "username": redis_tls.text,
    "password": redis_tls.text,
    "client_name": _client_name,
    **redis_tls.PARAMETERS,
}
