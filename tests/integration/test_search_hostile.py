"""What one person's texts and searches may cost: no text and no query makes a statement long, nobody else waits."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from urllib.parse import quote

import asyncpg
import psutil
import pytest

from gembackend.messages.search import search
from gembackend.messages.search_text import LONGEST_TEXT
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.ids import new_id
from gembackend.plumbing.postgres import Connection, Database
from gembackend.plumbing.share import Share
from tests.processes import until
from tests.searching import index, make_room, opened, owner, say
from tests.whole import Whole, whole_service

PATTERNS = ["".join(pattern) for length in (2, 3) for pattern in itertools.product("a1_~好", repeat=length)]
MOST_CPU_SECONDS = 0.5


class Costs:
    """What each statement of a connection takes of its server process, whatever else the machine does."""

    def __init__(self, connection: Connection) -> None:
        self.longest = 0.0
        self.statements = 0
        self._server = psutil.Process(connection.get_server_pid())
        self._before = self._taken()
        connection.add_query_logger(self._told)

    def _taken(self) -> float:
        return float(sum(self._server.cpu_times()[:2]))

    def _told(self, _: object) -> None:
        now = self._taken()
        self.longest = max(self.longest, now - self._before)
        self.statements += 1
        self._before = now


async def test_patterns_that_parsers_stumble_over_are_stored_indexed_and_searched_in_short_statements(
    db: asyncpg.Connection, database_url: str
) -> None:
    room = await make_room(db)
    user = await owner(db, room)
    storing = Costs(db)
    for start in range(0, len(PATTERNS), 10):
        await say(db, room, [(pattern * LONGEST_TEXT)[:LONGEST_TEXT] for pattern in PATTERNS[start : start + 10]])
    async with opened(database_url, 1) as database:
        async with database.connection() as connection:
            finding = Costs(connection)
        assert await index(database) == len(PATTERNS)
        for pattern in PATTERNS[::7]:
            for query in ((pattern * 200)[:200], f'"{(pattern * 200)[:198]}"', f"b{pattern * 50}"):
                async with database.connection() as connection:
                    found = await search(connection, user, query, None, 50)
                assert sum(len(message.content) for message in found.messages) <= 2**20
    assert storing.statements >= len(PATTERNS) // 10
    assert finding.statements > len(PATTERNS)
    assert max(storing.longest, finding.longest) < MOST_CPU_SECONDS


@pytest.fixture
async def whole(database_url: str, redis_url: str) -> AsyncIterator[Whole]:
    async with whole_service(database_url, redis_url) as started:
        yield started


async def test_one_persons_searches_leave_the_pool_to_the_others(whole: Whole, database_url: str) -> None:
    other = await whole.client.join()
    blocker = await asyncpg.connect(database_url)
    await blocker.execute("BEGIN; LOCK search_recent IN ACCESS EXCLUSIVE MODE")  # each search takes as long as it may
    floods = [
        asyncio.create_task(whole.client.call("GET", f"/v1/search?q={quote(chr(34))}phrase {number}{quote(chr(34))}"))
        for number in range(16)
    ]

    async def under_way() -> bool:
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'search_recent'::regclass"
        return bool(await blocker.fetchval(waiting))

    await until(under_way, "a search is under way")
    while not all(flood.done() for flood in floods):
        for path in ("/v1/user/me", "/v1/chatroom"):
            for token in (whole.client.token, other):
                answer = await whole.client.call("GET", path, token=token)
                assert answer.status == 200, answer.body
        assert await blocker.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") <= 2
    answers = [flood.result() for flood in floods]
    assert {answer.code for answer in answers} <= {"rate_limited", "database_unavailable"}
    assert {answer.status for answer in answers} <= {429, 503}
    assert any(answer.status == 429 and int(answer.headers["Retry-After"]) >= 1 for answer in answers)
    await blocker.execute("ROLLBACK")
    await blocker.close()
    assert (await whole.client.call("GET", "/v1/search?q=phrase")).status == 200
    assert (await whole.client.call("GET", "/v1/search?q=phrase", token=other)).status == 200


async def test_exports_keep_to_the_same_share(whole: Whole, database_url: str) -> None:
    room = await whole.room()
    await whole.ask(room, "to be taken along")
    blocker = await asyncpg.connect(database_url)
    await blocker.execute("BEGIN; LOCK chatrooms_messages IN ACCESS EXCLUSIVE MODE")
    exports = [asyncio.create_task(whole.client.call("GET", f"/v1/chatroom/{room}/export")) for _ in range(16)]
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'chatrooms_messages'::regclass"

    async def under_way() -> bool:
        return bool(await blocker.fetchval(waiting))

    await until(under_way, "an export is under way")
    for _ in range(5):
        assert (await whole.client.call("GET", "/v1/user/me")).status == 200
        assert await blocker.fetchval(waiting) <= 1
    await blocker.execute("ROLLBACK")
    await blocker.close()
    answers = await asyncio.gather(*exports)
    assert {answer.status for answer in answers} <= {200, 503}
    assert sum(answer.status == 200 for answer in answers) >= 15, "the one under way may have been given up"


async def test_a_share_is_a_third_of_the_pool_and_half_of_that_for_one_person(database_url: str) -> None:
    database = Database(database_url, 12)
    await database.open()
    share = Share(database, "searches")
    people = [new_id() for _ in range(3)]
    assert (share.size, share.personal) == (4, 2)
    async with share.of(people[0], wait=0.05).connection(), share.of(people[0], wait=0.05).connection():
        with pytest.raises(Fault) as refused:
            async with share.of(people[0], wait=0.05).connection():
                raise AssertionError
        assert (refused.value.code.name, refused.value.retry_after) == ("rate_limited", 1)
        async with share.of(people[1], wait=0.05).connection(), share.of(people[1], wait=0.05).connection():
            with pytest.raises(Fault) as refused:
                async with share.of(people[2], wait=0.05).connection():
                    raise AssertionError
            assert (refused.value.code.name, refused.value.retry_after) == ("busy", 1)
            async with database.connection() as held:
                assert await held.fetchval("SELECT 1") == 1
        async with share.of(people[2], wait=0.05).connection():
            pass
    assert share.people == 0
    await database.close()


async def test_who_waits_for_a_turn_gets_it(database_url: str) -> None:
    database = Database(database_url, 1)
    await database.open()
    share = Share(database, "searches")
    user = new_id()
    turns: list[int] = []

    async def work(number: int) -> None:
        async with share.of(user, wait=20).connection():
            turns.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(work(number) for number in range(20)))
    assert turns == list(range(20))
    await database.close()
