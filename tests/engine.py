"""A prompt engine for a test: real stores, the Gemini stand-in, and users and rooms to send prompts from."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from gembackend import config
from gembackend.actors import Supervisor
from gembackend.config import Settings
from gembackend.embedded.gemini import GeminiStandIn
from gembackend.gemini.client import Gemini
from gembackend.messages import store as messages
from gembackend.messages.models import Prompt
from gembackend.messages.rules import NewPrompt, Verdict
from gembackend.plumbing import redis
from gembackend.plumbing.ids import new_id
from gembackend.plumbing.postgres import Database
from gembackend.prompts.engine import PromptEngine

PATIENCE = 20.0
"""Seconds after which a test that waits for the engine fails."""


def settings(database_url: str, redis_url: str, gemini: str, **changes: Any) -> Settings:
    """Settings as in production, but for `changes`."""
    base = config.load(
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "GEMINI_ENDPOINT": gemini,
            "JWT_SECRET_KEY": "test key 0123456789 0123456789 0123456789",
            "OTP_DELIVERY": "response",
            "SERVER_HOST": "127.0.0.1",
        },
        "serve",
    )
    return dataclasses.replace(base, server_port=0, **changes)


class Engine:
    """One process's engine, and what a test does with it."""

    def __init__(self, chosen: Settings, standin: GeminiStandIn) -> None:
        assert chosen.database_url and chosen.redis_url
        self.settings = chosen
        self.gemini = standin
        self.database = Database.of(chosen, chosen.database_pool_size)
        self.redis = redis.connect(chosen.redis_url)
        self._blocking = redis.connect(chosen.redis_url, connections=1, socket_seconds=2)
        self._client = Gemini.of(chosen)
        self.engine = PromptEngine(chosen, self.database, self.redis, self._blocking, self._client)
        self.supervisor = Supervisor(self.engine.actors)

    async def start(self) -> None:
        """Open the pool and start every actor."""
        await self.database.open()
        await self.supervisor.start()

    async def stop(self, grace: float = 10.0) -> None:
        """Drain as the service does."""
        await self.supervisor.stop(asyncio.get_running_loop().time() + grace)
        await self._client.close()
        await self._blocking.aclose()
        await self.redis.aclose()
        await self.database.close()

    async def user(self, tier: str = "Pro") -> UUID:
        """Make a user."""
        user_id = new_id()
        async with self.database.connection() as connection:
            await connection.execute(
                "INSERT INTO users (id, phone, password_hash, subscription_tier) VALUES ($1, $2, 'x', $3)",
                user_id,
                f"+1{user_id.int % 10**12:012d}",
                tier,
            )
        return user_id

    async def room(self, user_id: UUID | None = None) -> tuple[UUID, UUID]:
        """Make a room, of a new Pro user unless one is named; gives (user id, room id)."""
        owner = user_id or await self.user()
        room_id = new_id()
        async with self.database.connection() as connection:
            await connection.execute(
                "INSERT INTO chatrooms_metadata (id, user_id, name) VALUES ($1, $2, 'room')", room_id, owner
            )
        return owner, room_id

    async def send(self, room: tuple[UUID, UUID], text: str, key: str | None = None) -> Verdict:
        """Send a prompt."""
        return await self.engine.intake.accept(NewPrompt(new_id(), *room, text, key, "test"))

    async def prompt(self, room: tuple[UUID, UUID], prompt_id: UUID | None) -> Prompt:
        """A prompt as it is now."""
        assert prompt_id is not None
        async with self.database.connection() as connection:
            prompt = await messages.prompt(connection, room[0], prompt_id)
        assert prompt is not None
        return prompt

    async def finished(self, room: tuple[UUID, UUID], prompt_id: UUID | None) -> Prompt:
        """A prompt once it has finished."""
        assert prompt_id is not None
        with self.engine.waiters.watch(prompt_id) as finish:
            prompt = await self.prompt(room, prompt_id)
            if prompt.finished:
                return prompt
            assert await finish.within(PATIENCE), f"{prompt_id} has not finished"
        return await self.prompt(room, prompt_id)

    async def ask(self, room: tuple[UUID, UUID], text: str) -> Prompt:
        """Send a prompt and wait for its end."""
        verdict = await self.send(room, text)
        assert verdict.decision == "accepted", verdict
        return await self.finished(room, verdict.prompt_id)

    async def fetch(self, statement: str, *arguments: Any) -> Any:
        """The first column of the first row."""
        async with self.database.connection() as connection:
            return await connection.fetchval(statement, *arguments)


@asynccontextmanager
async def running(database_url: str, redis_url: str, **changes: Any) -> AsyncIterator[Engine]:
    """An engine with a stand-in of its own, started, and drained at the end."""
    standin = GeminiStandIn()
    endpoint = await standin.start()
    engine = Engine(settings(database_url, redis_url, endpoint, **changes), standin)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()
        await standin.stop()
