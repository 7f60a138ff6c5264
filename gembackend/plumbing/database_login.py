"""Connecting to PostgreSQL: host by host, each within a bound, and in words what stood in the way."""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import asyncpg

from gembackend.plumbing.connections import NoneFree
from gembackend.plumbing.database_tls import system_trust
from gembackend.plumbing.database_url import Target
from gembackend.plumbing.pooler import Session

NEXT_HOST = (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.TargetServerAttributeNotMatched)
"""After these another host may do. Any other refusal is the cluster's own, as a wrong password is."""

# Quiet connections stay known to the firewalls on the way, and one whose other end is gone is found out.
KEEPALIVE = {"keepalives": 1, "keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 3}

_SERVER_SETTINGS = {"application_name": "gembackend", "timezone": "UTC"}


class Unreachable(Exception):
    """Nobody could log in; the text says where and why, in the server's own words, for an operator."""


class Login:
    """Logs in to a target. The host that took the last login is the first to be asked for the next one."""

    def __init__(
        self,
        target: Target,
        connect: Callable[..., Awaitable[Session]],
        *,
        seconds: float,
        statement_seconds: float,
    ) -> None:
        """`connect` takes what `asyncpg.connect` takes. `seconds` are for TCP, TLS and the login together, with each
        host; statements get `statement_seconds`."""
        self.where = target.where
        self._target = target
        self._connect = connect
        self._hosts = list(target.hosts)
        self._seconds = seconds
        self._arguments: dict[str, Any] = {
            "dsn": _dsn(target),
            "user": target.user,
            "password": target.password,
            "database": target.database,
            "passfile": target.passfile,
            "ssl": system_trust(target) if target.tls.get("sslrootcert") == "system" else None,
            "target_session_attrs": target.session,
            "server_settings": {**_SERVER_SETTINGS, **target.server_settings},
            "command_timeout": statement_seconds,
        }

    async def __call__(self) -> "asyncpg.Connection[asyncpg.Record]":
        """A new connection; raises Unreachable, whatever went wrong."""
        refusals: list[str] = []
        hosts = tuple(self._hosts)
        for number, host in enumerate(hosts, 1):
            try:
                async with asyncio.timeout(self._seconds):
                    connection = await self._connect(host=host.name, port=host.port, timeout=None, **self._arguments)
            except Exception as error:  # whatever is raised while connecting means that the database is away
                why = f"no answer within {self._seconds:g} s" if _in_vain(error) else reason(error)
                refusals.append(f"{host}: {why}" if len(hosts) > 1 else why)
                if number == len(hosts) or not isinstance(error, NEXT_HOST):
                    raise Unreachable("; ".join(refusals)) from error
            else:
                self._hosts.sort(key=lambda other: other != host)
                self._keep_alive(connection.socket)
                return connection
        raise AssertionError("there is always a host")

    def _keep_alive(self, connected: socket.socket | None) -> None:
        if connected is None or connected.family not in (socket.AF_INET, socket.AF_INET6):
            return
        chosen = KEEPALIVE | dict(self._target.keepalive)
        options = {
            "keepalives_idle": "TCP_KEEPIDLE",
            "keepalives_interval": "TCP_KEEPINTVL",
            "keepalives_count": "TCP_KEEPCNT",
            "tcp_user_timeout": "TCP_USER_TIMEOUT",
        }
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, chosen["keepalives"])
        for name, option in options.items():
            if chosen.get(name) and hasattr(socket, option):  # 0 is the system's own, in libpq too
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), chosen[name])


def _dsn(target: Target) -> str | None:
    """What asyncpg takes in a URL alone; the rest are arguments."""
    tls = {name: value for name, value in target.tls.items() if (name, value) != ("sslrootcert", "system")}
    return f"postgresql://?{urlencode(tls)}" if tls else None


def _in_vain(error: BaseException) -> bool:
    """Whether it is our own patience that ended."""
    return isinstance(error, TimeoutError) and error.errno is None


def reason(error: BaseException) -> str:
    """Why, on one line, in the server's or the system's own words where these cannot quote a secret."""
    if isinstance(error, asyncpg.PostgresError):
        told = f"{error.severity}: {error}" if error.severity else str(error)
    elif isinstance(error, Unreachable | NoneFree):
        told = str(error)
    elif _in_vain(error):
        told = "no answer in time"
    elif isinstance(error, OSError):
        told = re.sub(r" \(_ssl\.c:\d+\)$", "", error.strerror or str(error)) or type(error).__name__
    elif isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        told = "it takes no writes"
    elif isinstance(error, asyncpg.InterfaceError):
        told = str(error)
    else:
        told = f"the client failed ({type(error).__name__})"
    return " ".join(told.split())
