"""The whole service in a test's event loop, with a Gemini stand-in, and a logged-in client."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gembackend.app import Service
from gembackend.embedded.gemini import GeminiStandIn
from tests.accounts import CHEAP, Client, settings


@dataclasses.dataclass
class Whole:
    """A running service, its stand-in, and a client with a token of a Basic user."""

    service: Service
    gemini: GeminiStandIn
    client: Client

    async def room(self, name: str = "room") -> str:
        """Make a chatroom and return its id."""
        answer = await self.client.call("POST", "/v1/chatroom", {"name": name})
        assert answer.status == 201, answer.body
        return str(answer.body["id"])

    async def ask(self, room: str, prompt: str, **headers: str) -> Any:
        """Send a prompt and wait for its end."""
        answer = await self.client.call(
            "POST", f"/v1/chatroom/{room}/message", {"prompt": prompt}, headers={"Prefer": "wait=20", **headers}
        )
        assert answer.status == 200, answer.body
        return answer.body

    async def make_pro(self) -> None:
        """Lift the client's user to Pro."""
        async with self.service.database.connection() as connection:
            await connection.execute("UPDATE users SET subscription_tier = 'Pro'")


@asynccontextmanager
async def whole_service(database_url: str, redis_url: str, **environment: str) -> AsyncIterator[Whole]:
    """Start it all, and drain it at the end."""
    standin = GeminiStandIn()
    endpoint = await standin.start()
    chosen = dataclasses.replace(
        settings(database_url, redis_url, GEMINI_ENDPOINT=endpoint, **environment), server_port=0
    )
    service = Service(chosen, password_cost=CHEAP)
    await service.start()
    try:
        async with Client(service.url) as client:
            client.token = await client.join()
            yield Whole(service, standin, client)
    finally:
        await service.stop(10)
        await standin.stop()
