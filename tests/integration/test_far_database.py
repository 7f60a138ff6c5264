"""PostgreSQL at the end of a long line, with TLS, and at the end of one that is dead."""

import asyncio
import time
from pathlib import Path

import pytest

from gembackend.plumbing.postgres import Database, DatabaseAway
from tests import certificates
from tests.processes import until
from tests.relay import Relay
from tests.whole import whole_service

FAR = 0.2
"""A round trip to another region, in seconds."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's certificate and key, in a directory."""
    return certificates.make(tmp_path_factory.mktemp("tls"), "locked")


async def test_the_service_works_over_a_long_line_with_tls(direct_url: str, redis_url: str, certificate: Path) -> None:
    async with Relay(direct_url, round_trip=FAR, certificate=certificate).running() as line:
        url = line.url(sslmode="verify-full", sslrootcert=str(certificate / "crt"))
        async with whole_service(url, redis_url) as whole:
            answer = await whole.ask(await whole.room(), "so far away")
            assert answer["status"] == "answered"
        assert line.taken == line.secured > 1


async def test_an_attempt_that_takes_longer_than_anybody_waits_succeeds_all_the_same(direct_url: str) -> None:
    async with Relay(direct_url, round_trip=0.3).running() as line:
        database = Database(line.url(sslmode="disable"), 1, wait_seconds=0.05)
        await database.open()

        async def reached() -> bool:
            try:
                await database.ping()
            except DatabaseAway:
                return False
            return True

        with pytest.raises(DatabaseAway) as away:
            await database.ping()
        assert "no connection within 0.05 s" in away.value.told
        await until(reached, "the database reached")
        assert line.taken == 1
        await database.close()


async def test_a_dead_database_is_told_within_three_seconds_and_found_again_when_it_lives(
    direct_url: str, redis_url: str
) -> None:
    async with (
        Relay(direct_url).running() as line,
        whole_service(line.url(sslmode="disable"), redis_url, DATABASE_POOL_SIZE="6") as whole,
    ):
        room = await whole.room()
        line.silence()

        async def refused() -> float:
            begun = time.monotonic()
            answer = await whole.client.call("GET", f"/v1/chatroom/{room}")
            assert (answer.status, answer.code) == (503, "database_unavailable")
            return time.monotonic() - begun

        for _ in range(2):
            assert max(await asyncio.gather(*(refused() for _ in range(10)))) < 3
        taken = line.taken
        line.speak()

        async def answers() -> bool:
            return (await whole.client.call("GET", f"/v1/chatroom/{room}")).status == 200

        await until(answers, "answers again", 5)
        assert line.taken - taken <= 6, "at most as many more as there may be connections"


async def test_a_certificate_that_proves_nothing_is_the_reason(direct_url: str, certificate: Path) -> None:
    async with Relay(direct_url, certificate=certificate).running() as line:
        for query, why in (
            ({"sslrootcert": "system"}, "self-signed certificate"),
            ({"sslmode": "verify-full", "sslrootcert": str(certificate / "crt")}, None),
            ({"sslmode": "require"}, None),
            ({"sslmode": "prefer"}, None),
        ):
            database = Database(line.url(**query), 1)
            await database.open()
            if why is None:
                await database.ping()
            else:
                with pytest.raises(DatabaseAway) as away:
                    await database.ping()
                assert why in away.value.told and "_ssl.c" not in away.value.told
            await database.close()
        assert line.secured == 3
    async with Relay(direct_url).running() as line:
        database = Database(line.url(sslmode="require"), 1)
        await database.open()
        with pytest.raises(DatabaseAway):
            await database.ping()
        await database.close()
