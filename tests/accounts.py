"""The accounts part of the service on a listener of its own, and a client that talks to it."""

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import aiohttp
from redis.asyncio import Redis

from gembackend import config
from gembackend.auth.passwords import Cost
from gembackend.auth.room import Auth
from gembackend.auth.routes import AuthRoutes
from gembackend.plumbing import redis
from gembackend.plumbing.health import Trouble
from gembackend.plumbing.postgres import Database
from gembackend.plumbing.share import Share
from gembackend.users.routes import UserRoutes
from gembackend.web.routing import Route
from gembackend.web.server import HttpServer, build_app

CHEAP = Cost(memory_kib=64, passes=1)
SECRET = "a key for tests: 5dBvZ1kQ0pXn7LrY2cWmTs"
PASSWORD = "correct horse battery"

_numbers = itertools.count(10_000_000)


def new_phone() -> str:
    """A phone that no other test uses."""
    return f"+1555{next(_numbers)}"


def settings(database_url: str, redis_url: str, **environment: str) -> config.Settings:
    """Settings for tests; limits are out of the way unless a test sets them."""
    return config.load(
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "JWT_SECRET_KEY": SECRET,
            "OTP_RESEND_SECONDS": "0",
            "AUTH_RATE_LIMIT": "100000/60",
            **environment,
        },
        "dev",
    )


class Client:
    """A client of one server. `json` replies are parsed; a token and headers, once set, go with every request."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.token: str | None = None
        self.headers: dict[str, str] = {}
        self.http = aiohttp.ClientSession(base, connector=aiohttp.TCPConnector(limit=0))

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.close()

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        token: str | None = None,
    ) -> "Answer":
        """Send a request and read its answer."""
        headers = self.headers | (headers or {})
        if bearer := token or self.token:
            headers.setdefault("Authorization", f"Bearer {bearer}")
        async with self.http.request(method, path, json=body, headers=headers) as response:
            raw = await response.read()
            is_json = response.content_type.endswith("json") and raw
            return Answer(response.status, dict(response.headers), await response.json() if is_json else raw)

    async def post(self, endpoint: str, token: str | None = None, **body: Any) -> "Answer":
        """Call an auth endpoint."""
        return await self.call("POST", f"/v1/auth/{endpoint}", body, token=token)

    async def sign_up(self, phone: str, password: str = PASSWORD) -> None:
        """Make an account."""
        answer = await self.post("signup", phone=phone, password=password)
        assert answer.status == 201, answer.body

    async def otp(self, phone: str, password: str = PASSWORD) -> str:
        """Ask for a login code."""
        answer = await self.post("send-otp", phone=phone, password=password)
        assert answer.status == 200, answer.body
        return str(answer.body["otp"])

    async def log_in(self, phone: str, password: str = PASSWORD) -> str:
        """A new token."""
        answer = await self.post("verify-otp", phone=phone, otp=await self.otp(phone, password))
        assert answer.status == 200, answer.body
        return str(answer.body["token"])

    async def join(self, phone: str | None = None, password: str = PASSWORD) -> str:
        """Sign up and log in: a token."""
        phone = phone or new_phone()
        await self.sign_up(phone, password)
        return await self.log_in(phone, password)

    async def alive(self, token: str) -> bool:
        """Whether a token opens the user's page; anything but a 200 and a 401 fails."""
        answer = await self.call("GET", "/v1/user/me", token=token)
        assert answer.status in (200, 401), answer.body
        return answer.status == 200

    async def dead(self, token: str) -> bool:
        """Whether a token is refused."""
        return not await self.alive(token)


class Answer:
    """A status, headers, and a body: parsed JSON or bytes."""

    def __init__(self, status: int, headers: dict[str, str], body: Any) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def code(self) -> str:
        """The fault's code; fails unless the answer is a well-formed problem document."""
        assert self.headers["Content-Type"] == "application/problem+json", self.body
        assert self.body["status"] == self.status
        assert self.body["request_id"] == self.headers["X-Request-ID"]
        assert self.body.keys() >= {"type", "title", "detail"}
        return str(self.body["code"])


class Service:
    """One process's worth of the accounts part; two of them over one database are two processes."""

    def __init__(self, chosen: config.Settings, cost: Cost = CHEAP) -> None:
        assert chosen.database_url
        assert chosen.redis_url
        self.database = Database.of(chosen, chosen.database_pool_size)
        self.redis: Redis = redis.connect(chosen.redis_url)
        self.auth = Auth(chosen, self.database, self.redis, cost=cost)
        self.settings = chosen

    def routes(self) -> Sequence[Route]:
        """The routes of accounts."""
        users = UserRoutes(
            self.database,
            self.auth.versions,
            self.auth.credentials.confirm,
            daily_prompts=self.settings.basic_daily_prompts,
            phones=self.auth.phones,
            deletions=Share(self.database, "deletions"),
            dropped=lambda _rooms, _prompts: None,
        )
        auth = AuthRoutes(self.database, self.auth, trusted_proxies=self.settings.trusted_proxies)
        return [*auth.table(), *users.table()]

    async def health(self) -> dict[str, Trouble | None]:
        """Always well."""
        return {}

    @asynccontextmanager
    async def running(self, extra: Sequence[Route] = ()) -> AsyncIterator[Client]:
        """Serve, and hand out a client."""
        await self.database.open()
        await self.auth.start()
        app = build_app(
            [*self.routes(), *extra],
            authenticate=self.auth.sessions.authenticate,
            health=self.health,
            settings=self.settings,
        )
        server = HttpServer(app, host="127.0.0.1", port=0)
        await server.start()
        try:
            async with Client(server.url) as client:
                yield client
        finally:
            await server.stop(1)
            await self.auth.stop(5)
            await self.redis.aclose()
            await self.database.close()
