"""Rate limits under parallel requests, through proxies, and without Redis."""

import asyncio
import hashlib
import socket
from collections import Counter

import pytest
from structlog.testing import capture_logs

from gembackend.auth import limits
from gembackend.config import RateLimit
from gembackend.plumbing.redis import connect
from tests.accounts import PASSWORD, Answer, Client, Service, new_phone, settings
from tests.processes import no_later


async def burst(clients: list[Client], count: int, **body: str) -> list[Answer]:
    """The answers to requests for reset codes sent all at once, each for another phone unless one is given."""
    return await asyncio.gather(
        *(clients[nr % len(clients)].post("forgot-password", **({"phone": new_phone()} | body)) for nr in range(count))
    )


def tally(answers: list[Answer]) -> Counter[str]:
    return Counter("passed" if answer.status == 200 else answer.code for answer in answers)


async def test_of_two_hundred_parallel_requests_exactly_the_limit_pass(database_url: str, redis_url: str) -> None:
    chosen = settings(database_url, redis_url, AUTH_RATE_LIMIT="30/300")
    async with Service(chosen).running() as one, Service(chosen).running() as two:
        answers = await burst([one, two], 200)
        assert tally(answers) == {"passed": 30, "rate_limited": 170}
        refused = [answer for answer in answers if answer.status != 200]
        assert all(290 <= int(answer.headers["Retry-After"]) <= 300 for answer in refused)


async def test_retry_after_is_true(database_url: str, redis_url: str) -> None:
    chosen = settings(database_url, redis_url, AUTH_RATE_LIMIT="3/2")
    loop = asyncio.get_running_loop()
    async with Service(chosen).running() as client:
        began = loop.time()
        refused = [answer for answer in await burst([client], 6) if answer.status == 429]

        async def let_in() -> bool:
            return (await client.post("forgot-password", phone=new_phone())).status == 200

        await no_later(let_in, int(refused[-1].headers["Retry-After"]), "let in again")
        assert loop.time() - began >= 2


async def test_a_person_on_the_default_limit_gets_through(database_url: str, redis_url: str) -> None:
    chosen = settings(database_url, redis_url, AUTH_RATE_LIMIT="30/300")
    async with Service(chosen).running() as client:
        for _ in range(5):
            client.token = await client.join()
            assert (await client.post("logout")).status == 204
            client.token = None


async def test_every_auth_endpoint_but_logout_is_limited(database_url: str, redis_url: str) -> None:
    chosen = settings(database_url, redis_url, AUTH_RATE_LIMIT="3/300")
    async with Service(chosen).running() as client:
        token = await client.join()
        for endpoint in ("signup", "send-otp", "verify-otp", "forgot-password", "reset-password"):
            assert (await client.post(endpoint)).code == "rate_limited"
        for _ in range(3):
            assert (await client.post("change-password", token)).code == "validation_failed"
        assert (await client.post("change-password", token)).code == "rate_limited"
        assert (await client.post("logout", token)).status == 204


async def test_whoever_shows_a_live_session_has_a_limit_of_their_own(database_url: str, redis_url: str) -> None:
    chosen = settings(database_url, redis_url, AUTH_RATE_LIMIT="6/300")
    async with Service(chosen).running() as client:
        phone = new_phone()
        token, others = await client.join(phone), await client.join()
        assert (await client.post("forgot-password", phone=phone)).code == "rate_limited"
        code = (await client.post("forgot-password", token, phone=phone)).body["otp"]
        fresh = {"phone": phone, "otp": code, "new_password": "a new password"}
        assert (await client.post("reset-password", "no.token.this", **fresh)).code == "rate_limited"
        assert (await client.post("reset-password", token, **fresh)).status == 200
        assert (await client.post("forgot-password", token, phone=phone)).code == "rate_limited", "it has ended"
        changed = await client.post("change-password", others, old_password=PASSWORD, new_password="a new password")
        assert changed.status == 200


async def test_redis_is_told_neither_phones_nor_addresses(database_url: str, redis_url: str) -> None:
    chosen = settings(database_url, redis_url, AUTH_RATE_LIMIT="30/300", TRUSTED_PROXIES="127.0.0.0/8")
    service, phone, address = Service(chosen), new_phone(), "203.0.113.77"
    async with service.running() as client:
        client.headers["X-Forwarded-For"] = address
        token = await client.join(phone)
        for _ in range(30):
            await client.post("change-password", token)
        keys = [key async for key in service.redis.scan_iter(match="gembackend:limit:*")]
        told = b"\n".join([*keys, *[name for key in keys for name in await service.redis.zrange(key, 0, -1)]])
    assert len(keys) == 2, "the limits of the address and of the user"
    for secret in (phone, phone[1:], address, token, hashlib.sha256(address.encode()).hexdigest()[:16]):
        assert secret.encode() not in told


async def test_forwarded_addresses_count_only_from_a_trusted_proxy(database_url: str, redis_url: str) -> None:
    async def addresses(client: Client, *forwarded: str) -> Counter[int]:
        answers = [
            await client.call(
                "POST", "/v1/auth/forgot-password", {"phone": new_phone()}, headers={"X-Forwarded-For": header}
            )
            for header in forwarded
        ]
        return Counter(answer.status for answer in answers)

    many = [f"203.0.113.{nr}" for nr in range(6)]
    spoofed = [f"198.51.100.{nr}, 203.0.113.200" for nr in range(6)]
    one_network = [f"2001:db8:1:2::{nr}" for nr in range(6)]
    garbage = ["", "unknown", "127.0.0.1", ", ,", "203.0.113.9:80", "x, 127.0.0.2"]
    direct = settings(database_url, redis_url, AUTH_RATE_LIMIT="3/300")
    async with Service(direct).running() as client:
        assert await addresses(client, *many) == {200: 3, 429: 3}
    proxied = settings(database_url, redis_url, AUTH_RATE_LIMIT="3/300", TRUSTED_PROXIES="127.0.0.0/8, 10.0.0.0/8")
    async with Service(proxied).running() as client:
        assert await addresses(client, *many) == {200: 6}
        assert await addresses(client, *[f"{hop}, 10.1.2.3" for hop in many]) == {200: 6}
        assert await addresses(client, *spoofed) == {200: 3, 429: 3}
        assert await addresses(client, *one_network) == {200: 3, 429: 3}
        assert sum((await addresses(client, *garbage)).values()) == 6


async def test_nobody_uses_up_what_another_address_may_ask_about_a_phone(database_url: str, redis_url: str) -> None:
    chosen = settings(database_url, redis_url, AUTH_RATE_LIMIT="3/300", TRUSTED_PROXIES="127.0.0.0/8")
    phone = new_phone()
    async with Service(chosen).running() as client:
        await client.sign_up(phone)
        client.headers["X-Forwarded-For"] = "203.0.113.1"
        junk = [await client.post("verify-otp", phone=phone, otp="000000") for _ in range(5)]
        assert [answer.status for answer in junk] == [401, 401, 401, 429, 429]
        client.headers["X-Forwarded-For"] = "203.0.113.2"
        assert await client.log_in(phone)


@pytest.mark.parametrize("reached", ["refused", "dead"])
async def test_without_redis_half_as_many_pass(database_url: str, unused_tcp_port: int, reached: str) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1] if reached == "dead" else unused_tcp_port
    chosen = settings(database_url, f"redis://127.0.0.1:{port}", AUTH_RATE_LIMIT="30/300")
    loop = asyncio.get_running_loop()
    with silent:
        async with Service(chosen).running() as client:
            await client.post("forgot-password", phone=new_phone())
            began = loop.time()
            answers = await burst([client], 100)
            assert tally(answers) == {"passed": 14, "rate_limited": 86}
            assert loop.time() - began < 15, "not a timeout for each"


async def test_limits_that_each_process_keeps_alone_are_told_of_once_and_so_is_their_end(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REDIS_PAUSE_SECONDS", 0.0)
    redis = connect(redis_url)
    limited = limits.RateLimits(redis, RateLimit(100, 300))
    with capture_logs() as told:
        await limited.admit("tried", "somebody")
        (key,) = await redis.keys("gembackend:limit:tried:*")
        await redis.set(key, "not what the limits keep there")
        for _ in range(3):
            await limited.admit("tried", "somebody")
        await redis.delete(key)
        for _ in range(3):
            await limited.admit("tried", "somebody")
    await redis.aclose()
    assert [line["event"] for line in told] == ["rate_limits_local", "rate_limits_shared"]
