"""Fixtures of the acceptance tests: a site of real processes, on shared servers or on ones that may be broken."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.acceptance.breakable import Breakable
from tests.acceptance.site import Site, open_site


@pytest.fixture
async def site(database_url: str, redis_url: str) -> AsyncIterator[Site]:
    """A site on the servers that all tests of this test process share."""
    async with open_site(database_url, redis_url) as opened:
        yield opened


@pytest.fixture(scope="session")
def breakable_servers() -> Iterator[Breakable]:
    """A PostgreSQL and a Redis that tests may break, made when the first of them wants them."""
    servers = Breakable()
    yield servers
    servers.close()


@pytest.fixture
async def breakable(breakable_servers: Breakable) -> AsyncIterator[Breakable]:
    """Both of them at work, with an empty Redis."""
    await breakable_servers.heal()
    await breakable_servers.empty_redis()
    yield breakable_servers
    await breakable_servers.heal()


@pytest.fixture
async def shaky_site(breakable: Breakable) -> AsyncIterator[Site]:
    """A site on servers that the test may break."""
    async with open_site(await breakable.create_database(), breakable.redis_url) as opened:
        yield opened
