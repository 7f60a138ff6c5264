"""How long an answer takes tells nothing about whether a phone has an account."""

import statistics
from time import perf_counter

import pytest

from gembackend.auth.passwords import Cost
from tests.accounts import Client, Service, new_phone, settings

ROUNDS = 4
"""A machine that is busy with something else may spoil a round; a real difference spoils all of them."""
PAIRS = 100


async def medians(client: Client, endpoint: str, phones: tuple[str, str], body: dict[str, str]) -> list[float]:
    """The median seconds for each phone, their calls interleaved."""
    taken: dict[str, list[float]] = {phone: [] for phone in phones}
    for pair in range(PAIRS):
        for phone in phones if pair % 2 else reversed(phones):
            began = perf_counter()
            await client.post(endpoint, phone=phone, **body)
            taken[phone].append(perf_counter() - began)
    return [statistics.median(taken[phone]) for phone in phones]


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("send-otp", {"password": "not this one"}),
        ("forgot-password", {}),
        ("reset-password", {"otp": "000000", "new_password": "a new password"}),
    ],
)
async def test_known_and_unknown_phones_take_the_same_time(
    database_url: str, redis_url: str, endpoint: str, body: dict[str, str]
) -> None:
    chosen = settings(database_url, redis_url, TRUSTED_PROXIES="127.0.0.0/8")
    async with Service(chosen, Cost(memory_kib=2048, passes=1)).running() as client:
        phones = new_phone(), new_phone()
        await client.join(phones[0])
        client.headers["X-Forwarded-For"] = "203.0.113.5"
        for phone in phones:
            assert (await client.post("forgot-password", phone=phone)).status == 200, "a code is alive, or a decoy"
        ratios = []
        while not ratios or (not 0.9 < ratios[-1] < 1.1 and len(ratios) < ROUNDS):
            known, unknown = await medians(client, endpoint, phones, body)
            ratios.append(known / unknown)
    assert 0.9 < ratios[-1] < 1.1, ratios
