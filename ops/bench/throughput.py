"""Requests a second, and CPU a request, on each hot path of one real process, as ratios to its barest handler."""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import asyncpg
import psutil
import uvloop

from gembackend.embedded.postgres import EmbeddedPostgres, migrate
from gembackend.embedded.redis import EmbeddedRedis

Send = Callable[[], Awaitable[None]]
PHONE, PASSWORD = "+14155550100", "correct horse battery"
FEW_ROOMS = 16
"""As many prompts are in flight to Gemini where there are only so many rooms."""


async def main() -> None:
    """Start everything, load each path in turn, print the table."""
    parser = argparse.ArgumentParser(prog="ops/bench/run", add_help=False)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rooms", type=int, default=200)
    arguments = parser.parse_args()
    async with AsyncExitStack() as stack:
        url, database, service = await _start(stack)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0), json_serialize=json.dumps)
        )
        token = await _log_in(session)
        await database.execute("UPDATE users SET subscription_tier = 'Pro'")
        session.headers["Authorization"] = f"Bearer {token}"
        rooms = [await _room(session) for _ in range(arguments.rooms)]
        turn = itertools.cycle(rooms)
        few_turn = itertools.cycle([await _room(session) for _ in range(FEW_ROOMS)])
        heard = [await _room(session) for _ in range(FEW_ROOMS)]
        heard_turn = itertools.cycle(heard)

        async def get(path: str) -> None:
            async with session.get(path) as response:
                assert response.status == 200, await response.text()
                await response.read()

        async def send(wait: str | None, room: str) -> None:
            headers = {"Prefer": wait} if wait else {}
            path = f"/v1/chatroom/{room}/message"
            async with session.post(path, json={"prompt": "How do you do?"}, headers=headers) as response:
                assert response.status == (200 if wait else 202), await response.text()
                await response.read()

        paths: list[tuple[str, Send]] = [
            ("GET /livez (the barest handler)", lambda: get("/livez")),
            ("GET /v1/user/me", lambda: get("/v1/user/me")),
            ("GET /v1/chatroom (50 of them)", lambda: get("/v1/chatroom")),
            ("POST message, Prefer: wait (answered)", lambda: send("wait=30", next(turn))),
            (f"  the same in only {FEW_ROOMS} rooms", lambda: send("wait=30", next(few_turn))),
            ("  the same, streamed to a listener each", lambda: send("wait=30", next(heard_turn))),
            ("GET message/all (50 messages)", lambda: get(f"/v1/chatroom/{rooms[0]}/message/all?limit=50")),
            ("POST message (accepted)", lambda: send(None, next(turn))),
        ]
        for room in heard:
            stack.callback(asyncio.create_task(_listen(session, room)).cancel)
        bare = 0.0
        print(f"{'path':<40}{'a second':>9}{'median ms':>11}{'p99 ms':>9}{'CPU ms':>9}{'CPU ratio':>11}")
        for name, request in paths:
            before = sum(service.cpu_times()[:2])
            rate, latencies = await _load(request, arguments.seconds, arguments.clients)
            cpu = (sum(service.cpu_times()[:2]) - before) / len(latencies) * 1000
            bare = bare or cpu
            p99 = statistics.quantiles(latencies, n=100)[98]
            print(
                f"{name:<40}{rate:>9.0f}{statistics.median(latencies) * 1000:>11.1f}{p99 * 1000:>9.1f}"
                f"{cpu:>9.2f}{cpu / bare:>11.1f}",
                flush=True,
            )
        print(f"{'answered after the last load':<40}{await _drained(database):>9.0f}")


async def _listen(session: aiohttp.ClientSession, room: str) -> None:
    """Listen to a room and keep nothing of what it says."""
    async with session.get(f"/v1/chatroom/{room}/events", timeout=aiohttp.ClientTimeout(total=None)) as response:
        assert response.status == 200, await response.text()
        while await response.content.readany():
            pass


async def _load(request: Send, seconds: float, clients: int) -> tuple[float, list[float]]:
    """Requests a second and each one's seconds, with so many clients that each send one after another."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def client() -> None:
        while (began := time.perf_counter()) < end:
            await request()
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return len(latencies) / (time.perf_counter() - began), latencies


async def _drained(database: asyncpg.Connection) -> float:
    """Prompts answered a second from now until none is left."""
    query = "SELECT count(*) FROM prompts WHERE status IN ('queued', 'running')"
    left, began = await database.fetchval(query), time.perf_counter()
    while await database.fetchval(query):
        await asyncio.sleep(0.05)
    return float(left / (time.perf_counter() - began))


async def _start(stack: AsyncExitStack) -> tuple[str, asyncpg.Connection, psutil.Process]:
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gembackend-bench-")))
    postgres, redis = EmbeddedPostgres(directory), EmbeddedRedis(directory)
    stack.push_async_callback(postgres.stop)
    stack.push_async_callback(redis.stop)
    database_url, redis_url = await asyncio.gather(postgres.start(), redis.start())
    await migrate(database_url)
    standin = await _spawn(stack, "gembackend.embedded.gemini", "--latency", "0.05-0.15")
    endpoint = (await _line(standin, "grpc://")).split()[-1]
    service = await _spawn(
        stack,
        "gembackend",
        "serve",
        DATABASE_URL=database_url,
        REDIS_URL=redis_url,
        GEMINI_ENDPOINT=endpoint,
        JWT_SECRET_KEY="benchmark 0123456789 0123456789 0123456789",
        OTP_DELIVERY="response",
        SERVER_HOST="127.0.0.1",
        SERVER_PORT="0",
        PROMPT_BACKLOG_LIMIT="1000000",
        PROMPT_ROOM_LIMIT="1000000",
        PROMPT_HISTORY_MESSAGES="10",
        PROMPT_WORKERS="256",
    )
    ready = json.loads(await _line(service, '"ready"'))
    stack.callback(asyncio.create_task(_swallow(service)).cancel)
    connection = await asyncpg.connect(database_url)
    stack.push_async_callback(connection.close)
    return str(ready["url"]), connection, psutil.Process(service.pid)


async def _spawn(stack: AsyncExitStack, *module: str, **environment: str) -> Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *module, stdout=PIPE, stderr=asyncio.subprocess.STDOUT, env={**os.environ, **environment}
    )

    async def end() -> None:
        if process.returncode is None:
            process.terminate()
            await process.wait()

    stack.push_async_callback(end)
    return process


async def _line(process: Process, wanted: str) -> str:
    assert process.stdout is not None
    while line := (await process.stdout.readline()).decode():
        if wanted in line:
            return line
    raise RuntimeError("a process ended before it was ready")


async def _swallow(process: Process) -> None:
    assert process.stdout is not None
    while await process.stdout.read(1 << 16):
        pass


async def _log_in(session: aiohttp.ClientSession) -> str:
    async def post(path: str, **body: str) -> dict[str, str]:
        async with session.post(f"/v1/auth/{path}", json=body) as response:
            assert response.ok, await response.text()
            return dict(await response.json())

    await post("signup", phone=PHONE, password=PASSWORD)
    code = (await post("send-otp", phone=PHONE, password=PASSWORD))["otp"]
    return (await post("verify-otp", phone=PHONE, otp=code))["token"]


async def _room(session: aiohttp.ClientSession) -> str:
    async with session.post("/v1/chatroom", json={"name": "bench"}) as response:
        return str((await response.json())["id"])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
