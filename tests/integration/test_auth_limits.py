"""Rate limits under parallel requests, through proxies, and without Redis."""

import asyncio
import socket
from collections import Counter

import pytest

from tests.accounts import PASSWORD, Answer, Client, Service, new_phone, settings


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
        told, refused_at = int(refused[-1].headers["Retry-After"]), loop.time()
        while (await client.post("forgot-password", phone=new_phone())).status == 429:
            assert loop.time() - refused_at < told + 0.5
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
        client.token = await client.join()
        for endpoint in ("signup", "send-otp", "verify-otp", "forgot-password", "reset-password", "change-password"):
            assert (await client.post(endpoint)).code == "rate_limited"
        assert (await client.post("logout")).status == 204


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


async def test_a_phone_is_limited_from_wherever_it_is_tried(database_url: str, redis_url: str) -> None:
    chosen = settings(database_url, redis_url, AUTH_RATE_LIMIT="3/300", TRUSTED_PROXIES="127.0.0.0/8")
    phone, statuses = new_phone(), []
    async with Service(chosen).running() as client:
        for nr in range(6):
            answer = await client.call(
                "POST",
                "/v1/auth/send-otp",
                {"phone": phone, "password": PASSWORD},
                headers={"X-Forwarded-For": f"203.0.113.{nr}"},
            )
            statuses.append(answer.status)
    assert statuses == [401, 401, 401, 429, 429, 429]


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
            assert loop.time() - began < 3
