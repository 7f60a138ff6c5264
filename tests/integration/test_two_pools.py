"""The engine has database connections of its own: requests, however many, do not keep answers from being stored."""

import asyncio
from contextlib import AsyncExitStack

import asyncpg

from gembackend.embedded.gemini import Behaviour
from tests.processes import until
from tests.whole import whole_service


async def test_while_requests_hold_every_connection_of_theirs_answers_are_stored(
    database_url: str, redis_url: str, db: asyncpg.Connection
) -> None:
    answer = asyncio.Event()
    async with whole_service(database_url, redis_url, DATABASE_POOL_SIZE="4") as whole:
        whole.gemini.default = Behaviour(hold=answer)
        rooms = [await whole.room() for _ in range(3)]
        for room in rooms:
            sent = await whole.client.call("POST", f"/v1/chatroom/{room}/message", {"prompt": "hi"})
            assert sent.status == 202, sent.body
        await whole.gemini.wait_for_calls(3)
        async with AsyncExitStack() as flood:
            for _ in range(whole.service.database.size):
                await flood.enter_async_context(whole.service.database.connection())
            assert (await whole.client.call("GET", "/v1/chatroom")).status == 503
            answer.set()

            async def stored() -> bool:
                return bool(await db.fetchval("SELECT count(*) = 3 FROM prompts WHERE status = 'answered'"))

            await until(stored, "the answers stored")
        assert (await whole.client.call("GET", "/v1/chatroom")).status == 200
