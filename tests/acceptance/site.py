"""Processes of the service over one database, one Redis and one Gemini stand-in, and the users who talk to them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import aiohttp
import asyncpg
from redis.asyncio import Redis

from gembackend.embedded.gemini import GeminiStandIn
from gembackend.plumbing import redis
from gembackend.prompts.stream import GROUP, STREAM
from tests.accounts import PASSWORD, Answer, new_phone
from tests.processes import PATIENCE, Process, until

KEY = "a key for tests: 0fQm3WcXr8LzT5uJp2VbNe7KdS9YhG41"


class User:
    """A logged-in user. Each call names the process it goes to; tokens are good for all of them."""

    def __init__(self, http: aiohttp.ClientSession, token: str, user_id: str) -> None:
        self.id = user_id
        self._http = http
        self.token = token

    async def call(self, process: Process, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request and read its answer; underscores in the names of headers stand for hyphens."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await call(self._http, process, method, path, body, {"Authorization": f"Bearer {self.token}", **sent})

    async def room(self, process: Process) -> str:
        """Make a chatroom: its id."""
        answer = await self.call(process, "POST", "/v1/chatroom", {"name": "room"})
        assert answer.status == 201, answer.body
        return str(answer.body["id"])

    async def send(self, process: Process, room: str, text: str, **headers: str) -> Answer:
        """Send a prompt."""
        return await self.call(process, "POST", f"/v1/chatroom/{room}/message", {"prompt": text}, **headers)

    async def accepted(self, process: Process, room: str, text: str, **headers: str) -> str:
        """Send a prompt that is accepted: its id."""
        answer = await self.send(process, room, text, **headers)
        assert answer.status == 202, answer.body
        return str(answer.body["id"])

    async def finished(self, process: Process, prompt_id: str, seconds: int = 20) -> dict[str, Any]:
        """A prompt once it has finished."""
        answer = await self.call(process, "GET", f"/v1/prompt/{prompt_id}", Prefer=f"wait={seconds}")
        assert answer.status == 200 and answer.body["finished_at"], answer.body
        return dict(answer.body)


async def call(
    http: aiohttp.ClientSession, process: Process, method: str, path: str, body: Any, headers: dict[str, str]
) -> Answer:
    """Send a request to a process and read its answer."""
    async with http.request(method, process.url + path, json=body, headers=headers) as response:
        raw = await response.read()
        parsed = await response.json() if raw and response.content_type.endswith("json") else raw
        return Answer(response.status, dict(response.headers), parsed)


class Site:
    """The processes of a test. Every process gets a GEMINI_API_KEY of its own, by which a stand-in's rule knows it."""

    def __init__(self, database_url: str, redis_url: str, gemini: GeminiStandIn) -> None:
        self.gemini = gemini
        self.processes: list[Process] = []
        self.redis: Redis = redis.connect(redis_url)
        self._database_url = database_url
        self._environment = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "GEMINI_ENDPOINT": gemini.url,
            "JWT_SECRET_KEY": KEY,
            "OTP_DELIVERY": "response",
            "SERVER_HOST": "127.0.0.1",
            "SERVER_PORT": "0",
            "AUTH_RATE_LIMIT": "100000/1",
        }

    async def __aenter__(self) -> "Site":
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=60)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(process.kill() for process in self.processes))
        await self._http.close()
        await self.redis.aclose()

    @property
    def database_environment(self) -> dict[str, str]:
        """What a command needs that only reads and writes the database."""
        return {"DATABASE_URL": self._database_url}

    async def start(self, **environment: object) -> Process:
        """Start a process, with these variables beside the usual ones, and wait until it is ready."""
        return await (await self.begin(**environment)).ready()

    async def begin(self, **environment: object) -> Process:
        """Start a process without waiting for it."""
        number = {"GEMINI_API_KEY": f"process-{len(self.processes)}"}
        process = Process(self._environment | number | {name: str(value) for name, value in environment.items()})
        self.processes.append(process)
        await process.start()
        return process

    async def start_many(self, count: int, **environment: object) -> list[Process]:
        """Start several at once."""
        return list(await asyncio.gather(*(self.start(**environment) for _ in range(count))))

    def process_behind(self, api_key: str | None) -> Process:
        """The process that called Gemini with this key."""
        assert api_key is not None
        return self.processes[int(api_key.removeprefix("process-"))]

    async def get(self, process: Process, path: str) -> Answer:
        """Read a page that needs no session."""
        return await call(self._http, process, "GET", path, None, {})

    async def metric(self, process: Process, name: str) -> float:
        """The sum of a metric's samples, as it was a second ago at most."""
        text = (await self.get(process, "/metrics")).body.decode()
        samples = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return sum(float(value) for series, value in samples if series.partition("{")[0] == f"gembackend_{name}")

    async def user(self, process: Process, tier: str = "Pro") -> User:
        """Sign up and log in; the tier is set in the database."""
        phone = new_phone()

        async def auth(endpoint: str, **body: str) -> Any:
            answer = await call(self._http, process, "POST", f"/v1/auth/{endpoint}", body, {})
            assert answer.status in (200, 201), answer.body
            return answer.body

        signed_up = await auth("signup", phone=phone, password=PASSWORD)
        code = await auth("send-otp", phone=phone, password=PASSWORD)
        logged_in = await auth("verify-otp", phone=phone, otp=code["otp"])
        user_id = signed_up["user"]["id"]
        await self.fetch("UPDATE users SET subscription_tier = $2 WHERE id = $1::text::uuid", user_id, tier)
        return User(self._http, logged_in["token"], user_id)

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """What a statement gives, over a connection of its own, so that the server may be away at other times."""
        connection = await asyncpg.connect(self._database_url, timeout=5)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close(timeout=5)

    async def value(self, statement: str, *arguments: Any) -> Any:
        """The first column of the first row."""
        return (await self.fetch(statement, *arguments))[0][0]

    async def all_finished(self, seconds: float = PATIENCE) -> None:
        """Wait until no prompt is unfinished."""

        async def none_left() -> bool:
            unfinished = await self.value("SELECT count(*) FROM prompts WHERE status IN ('queued', 'running')")
            return unfinished == 0

        await until(none_left, "every prompt finished", seconds)

    async def at_rest(self, seconds: float = PATIENCE) -> None:
        """Wait until the stream has no entry and no pending one."""

        async def empty() -> bool:
            return await self.redis.xlen(STREAM) == await self.pending() == 0

        await until(empty, "the stream empty", seconds)

    async def pending(self) -> int:
        """How many entries were read and not acknowledged."""
        return int((await self.redis.xpending(STREAM, GROUP))["pending"])

    async def held_by(self, process: Process) -> int:
        """How many prompts are leased to a process, alive or dead."""
        owner = f"%-{process.pid}-%"
        return int(
            await self.value("SELECT count(*) FROM prompts WHERE status = 'running' AND leased_by LIKE $1", owner)
        )

    async def consumers(self) -> int:
        """How many consumers the group has."""
        return len(await self.redis.xinfo_consumers(STREAM, GROUP))


@asynccontextmanager
async def open_site(database_url: str, redis_url: str, *, calls_kept: int = 5_000) -> AsyncIterator[Site]:
    """A site with a stand-in, which remembers so many calls, and no process yet; every process is killed at the end."""
    standin = GeminiStandIn(keep=calls_kept)
    await standin.start()
    async with Site(database_url, redis_url, standin) as site:
        yield site
    await standin.stop()
