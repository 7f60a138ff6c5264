"""What is someone else's does not exist: two users, every route with an id, every verb."""

import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from tests.accounts import PASSWORD, Answer, Client
from tests.whole import Whole, whole_service

VERBS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
BODIES: tuple[Any, ...] = (None, {}, {"name": "mine now"}, {"prompt": "hello"}, {"nonsense": 1})


@pytest.fixture
async def whole(database_url: str, redis_url: str) -> AsyncIterator[Whole]:
    async with whole_service(database_url, redis_url) as started:
        yield started


def looks(answer: Answer, name: str) -> tuple[Any, ...]:
    """All that a client can see of an answer, but for ids that are new with each."""
    headers = {k: v for k, v in answer.headers.items() if k not in ("X-Request-ID", "Date")}
    body = {k: v for k, v in answer.body.items() if k != "request_id"} if isinstance(answer.body, dict) else answer.body
    return answer.status, headers, str(body).replace(name, "")


async def call(client: Client, verb: str, path: str, body: Any, token: str) -> Answer:
    return await client.call(verb, path, body, token=token, headers={"Idempotency-Key": "the same", "Prefer": "wait=0"})


async def test_another_users_id_and_an_unknown_id_get_the_same_answer(whole: Whole) -> None:
    client = whole.client
    room = await whole.room("mine")
    prompt = (await whole.ask(room, "a secret"))["id"]
    mine = {"chatroom_id": room, "prompt_id": prompt}
    stranger = await client.join()
    templates = {r.resource.canonical for r in whole.service.app.router.routes() if r.resource}
    templates = {template for template in templates if "_id}" in template}
    assert len(templates) >= 4
    compared = 0
    for template in sorted(templates):
        (name,) = re.findall(r"{(\w+)}", template)
        for verb in VERBS:
            for body in BODIES:
                unknown = str(uuid4())
                theirs = await call(client, verb, template.replace(f"{{{name}}}", mine[name]), body, stranger)
                nobodys = await call(client, verb, template.replace(f"{{{name}}}", unknown), body, stranger)
                assert looks(theirs, mine[name]) == looks(nobodys, unknown), (verb, template, body)
                assert 400 <= theirs.status < 500
                compared += 1
    assert compared >= len(templates) * len(VERBS) * len(BODIES)
    assert (await client.call("GET", f"/v1/chatroom/{room}")).body["name"] == "mine"
    assert (await client.call("GET", f"/v1/prompt/{prompt}")).body["prompt"] == "a secret"


async def test_lists_and_pages_show_ones_own_only(whole: Whole) -> None:
    client = whole.client
    await whole.ask(await whole.room("mine"), "a secret")
    cursor = (await client.call("GET", "/v1/chatroom?limit=1")).body["next_cursor"]
    assert cursor is None
    stranger = await client.join()
    assert (await client.call("GET", "/v1/chatroom", token=stranger)).body == {"chatrooms": [], "next_cursor": None}
    me = (await client.call("GET", "/v1/user/me", token=stranger)).body
    assert me["usage"]["prompts_today"] == 0


async def test_leaving_takes_everything_along(whole: Whole) -> None:
    client = whole.client
    await whole.ask(await whole.room(), "a secret")
    assert (await client.call("DELETE", "/v1/user/me", {"password": PASSWORD})).status == 204
    async with whole.service.database.connection() as connection:
        for table in ("users", "chatrooms_metadata", "chatrooms_messages", "prompts", "prompt_usage"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0, table
