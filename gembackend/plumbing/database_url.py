"""DATABASE_URL, read as PostgreSQL's own clients read it: what it asks for is done, or refused in a sentence.

The grammar and the parameters are those of libpq (PostgreSQL documentation, 34.1.1.2 and 34.1.2), so that psql and this
service can be given the same URL. No sentence quotes a value, because any part of a URL may be part of a password.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote, unquote

from gembackend.plumbing.database_parameters import check_parameter
from gembackend.plumbing.values import Refused

SCHEMES = ("postgresql://", "postgres://")
DEFAULT_PORT = 5432
CONNECT_SECONDS = 5.0
"""For TCP, TLS and login together, unless told otherwise: seven round trips are 1.4 s where one takes 200 ms."""
LONGEST_CONNECT_SECONDS = 120.0

_ENCODE = "write / ? # @ : and % in a name or password percent-encoded, like %40 for @"
_TLS = (
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "sslcrl",
    "sslcert",
    "sslkey",
    "sslpassword",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
)
_STRICT = ("require", "verify-ca", "verify-full")


@dataclass(frozen=True, slots=True)
class Host:
    """A name, an address, or (beginning with /) the directory of a socket; no name is the client's own default."""

    name: str | None
    port: int | None

    def __str__(self) -> str:
        name = self.name or "the local socket"
        return f"{f'[{name}]' if ':' in name else name}:{self.port or DEFAULT_PORT}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A database and how to log in to it. None is left to the client: PGUSER, PGPASSWORD, a password file."""

    hosts: tuple[Host, ...]
    user: str | None
    password: str | None = field(repr=False)
    database: str | None
    passfile: str | None
    tls: Mapping[str, str] = field(repr=False)
    server_settings: Mapping[str, str] = field(repr=False)
    session: Literal["any", "read-write", "primary"]
    connect_seconds: float | None
    keepalive: Mapping[str, int]

    @property
    def where(self) -> str:
        """Host, port and database, for an operator."""
        return f"{', '.join(map(str, self.hosts))}, database {self.database or self.user or 'named like the user'}"


def read(url: str) -> Target:
    """Take a URL apart; raises Refused."""
    if not url.startswith(SCHEMES):
        raise Refused("must be a URL starting with postgresql:// or postgres://")
    if not url.isprintable() or " " in url:
        raise Refused("has a space, a line break or another character that must be percent-encoded")
    rest = url.partition("://")[2]
    user, password, rest = _login(rest)
    hosts, rest = _split(rest, "/?")
    path, _, query = rest.removeprefix("/").partition("?") if rest.startswith("/") else ("", "", rest.removeprefix("?"))
    if "@" in path:
        raise Refused(f"has an @ behind its host: {_ENCODE}")
    given = {"user": user, "password": password, "dbname": _decoded(path)}
    given["host"], given["port"] = _hosts_and_ports(hosts)
    given |= dict(_parameters(query))
    return _target({name: value for name, value in given.items() if value})


def compose(host: str, port: int, user: str, password: str, database: str) -> str:
    """The URL of what these say; `host` may be a name, an address, the directory of a socket, or several of them.

    Raises Refused.
    """
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    hosts = [part.strip().strip("[]") for part in host.split(",")]
    if any("://" in part or part.count(":") == 1 for part in hosts):
        raise Refused("must be a host alone: its port goes into DB_PORT, a whole URL into DATABASE_URL")
    coded = [f"[{part.replace('%', '%25')}]" if ":" in part else quote(part, safe="") for part in hosts]
    return f"postgresql://{login}@{','.join(f'{part}:{port}' for part in coded)}/{quote(database, safe='')}"


def _login(rest: str) -> tuple[str, str, str]:
    """User, password, and what follows them."""
    login, at, behind = _before(rest, "/").partition("@")
    if not at:
        return "", "", rest
    user, _, password = login.partition(":")
    return _decoded(user), _decoded(password), behind + rest[len(_before(rest, "/")) :]


def _before(text: str, marks: str) -> str:
    return _split(text, marks)[0]


def _split(text: str, marks: str) -> tuple[str, str]:
    """The text up to the first of these marks, and the rest, which begins with it."""
    end = min((place for mark in marks if (place := text.find(mark)) >= 0), default=len(text))
    return text[:end], text[end:]


def _decoded(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})|%00", text):
        raise Refused("has a % that is not followed by two hexadecimal digits: a % itself is written %25")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise Refused("has percent-encoded bytes that are not UTF-8") from None


def _hosts_and_ports(text: str) -> tuple[str, str]:
    """The comma-separated hosts, and their ports, out of host:port,host:port."""
    hosts, ports = [], []
    for part in text.split(","):
        bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", part)
        if "@" in part:
            raise Refused(f"has more than one @: {_ENCODE}")
        if part.count(":") > 1 and not bracketed:
            raise Refused(f"has a host with several colons: write an IPv6 address as [::1]; {_ENCODE}")
        host, port = (bracketed[1], bracketed[2] or "") if bracketed else part.partition(":")[::2]
        hosts.append(_decoded(host))
        ports.append(_decoded(port))
    return ",".join(hosts), ",".join(ports) if any(ports) else ""


def _parameters(query: str) -> Iterator[tuple[str, str]]:
    for part in query.split("&") if query else ():
        name, equals, value = part.partition("=")
        if not equals or "=" in value:
            raise Refused("has a parameter that is not written name=value (an = in a value is written %3D)")
        name, value = _decoded(name), _decoded(value)
        if (name, value) == ("ssl", "true"):  # as JDBC writes it, and libpq reads it
            name, value = "sslmode", "require"
        if fault := check_parameter(name, value, quotable="@" not in query):
            raise Refused(fault)
        yield name, value


def _target(given: dict[str, str]) -> Target:
    """Put it together; raises Refused where parts do not go with one another."""
    hosts = _hosts(given)
    if hosts[0].name is None and not given.keys() - {"user", "password"}:
        raise Refused("names neither a host nor a database")
    tls = {name: given[name] for name in _TLS if name in given}
    strict = tls.get("sslmode") in _STRICT
    if tls.get("sslrootcert") == "system":
        if tls.setdefault("sslmode", "verify-full") != "verify-full":
            raise Refused("needs sslmode=verify-full with sslrootcert=system")
    elif not strict and tls.get("sslnegotiation") == "direct":
        raise Refused("needs an sslmode of require, verify-ca or verify-full with sslnegotiation=direct")
    if ("sslcert" in tls) != ("sslkey" in tls):
        raise Refused("needs sslcert and sslkey together")
    settings = {"application_name": given.get("application_name") or given.get("fallback_application_name")}
    settings["options"] = given.get("options")
    seconds = int(given.get("connect_timeout", "0"))
    return Target(
        hosts=hosts,
        user=given.get("user"),
        password=given.get("password"),
        database=given.get("dbname"),
        passfile=given.get("passfile"),
        tls=tls,
        server_settings={name: value for name, value in settings.items() if value},
        # Of several hosts the one that takes writes is meant; libpq takes the first that answers.
        session=given.get("target_session_attrs", "read-write" if len(hosts) > 1 else "any"),  # type: ignore[arg-type]
        connect_seconds=min(float(seconds), LONGEST_CONNECT_SECONDS) if seconds > 0 else None,
        keepalive={
            name: int(given[name]) for name in given if name.startswith("keepalives") or name == "tcp_user_timeout"
        },
    )


def _hosts(given: dict[str, str]) -> tuple[Host, ...]:
    if "hostaddr" in given:
        if "host" in given:
            raise Refused("has both a host and hostaddr, which is not supported: give one of them, as the host")
        given["host"] = given["hostaddr"]
    names, ports = given.get("host", "").split(","), given.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(names)
    if len(ports) != len(names):
        raise Refused("has as many ports as hosts, or one port, but neither is so")
    if len(names) > 1 and not all(names):
        raise Refused("has an empty host among several")
    if any(not name.isprintable() or (not name.startswith("/") and set(name) & set(" @[]")) for name in names):
        raise Refused("has a host that is no name, address or directory of a socket")
    if any(port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536) for port in ports):
        raise Refused(f"has a port that is no number from 1 to 65535; {_ENCODE}")
    return tuple(Host(name or None, int(port) if port else None) for name, port in zip(names, ports, strict=True))
