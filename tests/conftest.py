"""Fixtures for every test: real servers, a database of its own for each test, and a loop that hides no failure.

`pytest tests/integration --pooler transaction` (or `session`) has everything that uses `database_url` go through a real
PgBouncer, of Debian's package; in transaction mode it has three servers for a database. Without the option, the tests
that are marked `pooled` are run behind one in transaction mode as well.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping

import asyncpg
import pytest

from gembackend.live import listener
from gembackend.prompts import stream
from tests import loops
from tests.pooler import MODES
from tests.servers import Servers
from tests.tools import left_out


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tell pytest-asyncio which event loop to run tests on."""
    return {"uvloop": loops.new_loop}


def pytest_addoption(parser: pytest.Parser) -> None:
    """How the tests reach PostgreSQL."""
    parser.addoption("--pooler", choices=list(MODES), help="run behind a PgBouncer in this mode")


def pytest_configure(config: pytest.Config) -> None:
    """Say what the marks mean."""
    config.addinivalue_line("markers", "pooled: run behind a pooler in transaction mode as well")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have the tests that are marked so run behind a pooler as well."""
    chosen = metafunc.config.getoption("pooler")
    if "pooler" in metafunc.fixturenames:
        if chosen is not None:
            metafunc.parametrize("pooler", [chosen], indirect=True)
        elif metafunc.definition.get_closest_marker("pooled"):
            metafunc.parametrize("pooler", [None, "transaction"], ids=["direct", "transaction"], indirect=True)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Tell at the very end, also of a run in several processes, what was left out for want of a tool."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", ()) if reporter else ()
    if told := left_out(report.longrepr[2] for report in skipped):
        reporter.write_line(told)


def pytest_collection_finish() -> None:
    """Leave out what is loaded by now from later garbage collections, of which every asynchronous test causes one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_loop_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test whose event loop reported what nobody handled, such as an exception in a forgotten task."""
    loops.faults.clear()
    yield
    if "_function_scoped_runner" in request.fixturenames:
        gc.collect()  # a task's unseen exception is reported when the task is collected
    assert not loops.faults


@pytest.fixture(scope="session", autouse=True)
def brisk_ends() -> Iterator[None]:
    """An engine in a test's own loop waits shorter at a time for Redis, which is what its drain waits for: hundreds of
    tests drain one. The processes of the acceptance tests wait as long as they do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "BLOCK_MILLISECONDS", 20)
        patch.setattr(listener, "LISTEN_SECONDS", 0.02)
        yield


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """A PostgreSQL and a Redis for this test process."""
    running = Servers()
    running.start()
    yield running
    running.stop()


@pytest.fixture
def pooler(request: pytest.FixtureRequest) -> str | None:
    """The mode of the pooler that `database_url` goes through, None when there is none."""
    return getattr(request, "param", None)


@pytest.fixture
def direct_url(servers: Servers) -> Iterator[str]:
    """A database with the current schema and nothing in it, for this test alone, and no pooler before it."""
    url = servers.create_database()
    yield url
    servers.drop_database(url)


@pytest.fixture
def database_url(servers: Servers, direct_url: str, pooler: str | None) -> str:
    """The same database, as the service is told of it."""
    return direct_url if pooler is None else servers.pooled(direct_url, pooler)


@pytest.fixture
def empty_database_url(servers: Servers) -> Iterator[str]:
    """A database with no schema, for this test alone."""
    url = servers.create_database(migrated=False)
    yield url
    servers.drop_database(url)


@pytest.fixture
def redis_url(servers: Servers) -> str:
    """An empty Redis."""
    return servers.empty_redis()


@pytest.fixture
async def db(direct_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the test's database."""
    connection = await asyncpg.connect(direct_url)
    yield connection
    await connection.close()
