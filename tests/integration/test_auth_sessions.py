"""Sessions end everywhere at once: two services over one database are two processes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import pytest
from redis.asyncio import Redis

from tests.accounts import PASSWORD, Client, Service, new_phone, settings
from tests.processes import no_later


@dataclass
class Pair:
    """Two processes, and a person logged in to both."""

    here: Client
    there: Client
    services: tuple[Service, Service]
    phone: str
    token: str


@pytest.fixture
async def pair(database_url: str, redis_url: str) -> AsyncIterator[Pair]:
    chosen = settings(database_url, redis_url)
    services = Service(chosen), Service(chosen)
    async with services[0].running() as here, services[1].running() as there:
        phone = new_phone()
        token = await here.join(phone)
        assert await here.alive(token)
        assert await there.alive(token)
        yield Pair(here, there, services, phone, token)


async def change(pair: Pair) -> str:
    """Change the password; the new password."""
    new = "a changed password"
    changed = await pair.here.post("change-password", pair.token, old_password=PASSWORD, new_password=new)
    assert changed.status == 200
    assert await pair.there.alive(changed.body["token"]), "the token that comes of it works everywhere at once"
    return new


async def reset(pair: Pair) -> str:
    """Reset the password; the new password."""
    code = (await pair.here.post("forgot-password", phone=pair.phone)).body["otp"]
    done = await pair.here.post("reset-password", phone=pair.phone, otp=code, new_password="a reset password")
    assert done.status == 200
    return "a reset password"


async def log_out(pair: Pair) -> str:
    """Log out; the old password."""
    assert (await pair.here.post("logout", pair.token)).status == 204
    return PASSWORD


@pytest.mark.parametrize("flush", [False, True], ids=["", "after FLUSHALL"])
@pytest.mark.parametrize("end", [change, reset, log_out])
async def test_ending_sessions_here_ends_them_there_within_a_second(
    pair: Pair, redis_url: str, end: Callable[[Pair], Awaitable[str]], flush: bool
) -> None:
    if flush:
        async with Redis.from_url(redis_url) as redis:
            await redis.flushall()
    assert await pair.there.alive(pair.token)
    password = await end(pair)
    elsewhere = asyncio.create_task(no_later(partial(pair.there.dead, pair.token), 1.0, "ended elsewhere"))
    assert not await pair.here.alive(pair.token)
    newer = await pair.here.log_in(pair.phone, password)
    assert await pair.there.alive(newer), "a login in the same second works"
    assert await pair.here.alive(newer)
    await elsewhere


async def test_sessions_end_everywhere_with_redis_away(database_url: str, unused_tcp_port: int) -> None:
    chosen = settings(database_url, f"redis://127.0.0.1:{unused_tcp_port}")
    async with Service(chosen).running() as here, Service(chosen).running() as there:
        token = await here.join()
        assert await there.alive(token)
        assert (await here.post("logout", token)).status == 204
        await no_later(partial(there.dead, token), 1.0, "ended elsewhere")


@pytest.mark.pooled
async def test_a_deleted_user_has_no_session_anywhere(pair: Pair) -> None:
    gone = await pair.here.call("DELETE", "/v1/user/me", {"password": PASSWORD}, token=pair.token)
    assert gone.status == 204
    assert not await pair.here.alive(pair.token)
    await no_later(partial(pair.there.dead, pair.token), 1.0, "ended elsewhere")


async def test_without_the_database_nobody_is_let_in_and_nobody_is_told_they_are_logged_out(pair: Pair) -> None:
    await pair.services[1].database.close()

    async def refused() -> bool:
        return (await pair.there.call("GET", "/v1/user/me", token=pair.token)).status != 200

    await no_later(refused, 1.0, "nobody let in")
    answer = await pair.there.call("GET", "/v1/user/me", token=pair.token)
    assert (answer.status, answer.code) == (503, "database_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert await pair.here.alive(pair.token)


@pytest.mark.pooled
async def test_a_hundred_requests_at_once_share_few_queries(pair: Pair) -> None:
    tokens = await asyncio.gather(*(pair.here.join() for _ in range(20)))
    asked = 0
    original = pair.services[1].database.connection

    def counted() -> object:
        nonlocal asked
        asked += 1
        return original()

    versions = pair.services[1].auth.versions
    versions._database.connection = counted  # type: ignore[method-assign, assignment]
    try:
        sessions = pair.services[1].auth.sessions
        await asyncio.gather(*(sessions.authenticate(token) for token in tokens * 5))
    finally:
        versions._database.connection = original  # type: ignore[method-assign]
    assert asked <= 2
