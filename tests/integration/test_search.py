"""Full-text search over a user's own messages."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from yarl import URL

from gembackend.embedded.gemini import Behaviour
from gembackend.messages import search_store
from gembackend.plumbing.ids import new_id
from gembackend.web.paging import encode_cursor
from tests.whole import Whole, whole_service


@pytest.fixture
async def whole(database_url: str, redis_url: str) -> AsyncIterator[Whole]:
    async with whole_service(database_url, redis_url) as started:
        await started.make_pro()
        yield started


async def search(whole: Whole, text: str, more: str = "") -> Any:
    """What a search answers."""
    answer = await whole.client.call("GET", f"/v1/search?q={quote(text)}{more}")
    assert answer.status == 200, answer.body
    return answer.body


async def found(whole: Whole, text: str) -> list[str]:
    """The contents that a search finds, all on one page."""
    page = await search(whole, text)
    assert page["next_cursor"] is None
    return [message["content"] for message in page["messages"]]


async def pages(whole: Whole, text: str, limit: int) -> AsyncIterator[list[str]]:
    """The contents that a search finds, page by page."""
    cursor = ""
    while True:
        page = await search(whole, text, f"&limit={limit}{cursor}")
        yield [message["content"] for message in page["messages"]]
        if page["next_cursor"] is None:
            return
        cursor = f"&cursor={page['next_cursor']}"


async def fill(
    db: asyncpg.Connection, room: str, count: int, content: str, *, step: str, since: str = "now() - interval '1 day'"
) -> None:
    """Put messages into a room, one each `step` from `since` back; `content` is an expression of their number, nr."""
    await db.execute(
        f"""
        WITH sent AS (
            INSERT INTO prompts (id, user_id, chatroom_id, sequence, content, status, request_id, finished_at)
            SELECT gen_random_uuid(), r.user_id, r.id, 1000000 + nr, 'q', 'answered', 'test', now()
            FROM chatrooms_metadata r, generate_series(1, $2) nr WHERE r.id = $1
            RETURNING id, user_id, chatroom_id, sequence - 1000000 AS nr
        )
        INSERT INTO chatrooms_messages (id, user_id, chatroom_id, prompt_id, position, role, content, created_at)
        SELECT 'filled-' || id, user_id, chatroom_id, id, 3000000 + nr, 'assistant', {content},
               {since} - nr * interval '{step}'
        FROM sent
        """,
        room,
        count,
    )


@pytest.mark.pooled
async def test_what_was_just_said_is_found_newest_first_with_its_room(whole: Whole) -> None:
    garden, kitchen = await whole.room("garden"), await whole.room("kitchen")
    whole.gemini.script(Behaviour(text="Plant Tulips in autumn."), Behaviour(text="Tomatoes and basil."))
    first = await whole.ask(garden, "When do I plant tulips?")
    second = await whole.ask(kitchen, "Soup without tulips, please")
    page = await search(whole, "TULIPS")
    assert [(message["role"], message["chatroom_id"]) for message in page["messages"]] == [
        ("user", kitchen),
        ("assistant", garden),
        ("user", garden),
    ]
    assert page["messages"][1] == first["reply"] | {"chatroom_id": garden}
    assert page["messages"][0]["prompt_id"] == second["id"]
    assert page["next_cursor"] is None


@pytest.mark.parametrize(
    ("text", "contents"),
    [
        ("blue sky", ["the sky is blue", "a blue sky"]),
        ('"blue sky"', ["a blue sky"]),
        ('"the sky"', ["the sky is blue"]),
        ("sky -is", ["a blue sky"]),
        ('sky -"blue sky"', ["the sky is blue"]),
        ('-"blue sky" -the', ["ein Himmel, ganz blau", "„Überall“—grün。"]),
        ("himmel or blue", ["ein Himmel, ganz blau", "the sky is blue", "a blue sky"]),
        ("the", ["the-dash 42", "the sky is blue"]),
        ("the-dash", ["the-dash 42"]),
        ("42", ["the-dash 42"]),
        ("“blue sky”", ["a blue sky"]),
        ("ÜBERALL", ["„Überall“—grün。"]),
        ("grün", ["„Überall“—grün。"]),
        ("blu", []),
        ("blue nowhere", []),
        ("?!", []),
        ("...", []),
        ('""', []),
        ("-", []),
        ("& | ! <-> :*", []),
        ("'; DROP TABLE users; --", []),
        ("\\", []),
        ("blue & sky)", ["the sky is blue", "a blue sky"]),
    ],
)
async def test_a_query_is_read_as_a_search_engine_reads_it(
    whole: Whole, db: asyncpg.Connection, text: str, contents: list[str]
) -> None:
    room = await whole.room()
    texts = "(ARRAY['the-dash 42', 'ein Himmel, ganz blau', 'the sky is blue', 'a blue sky', '„Überall“—grün。'])[nr]"
    await fill(db, room, 5, texts, step="1 minute")
    assert await found(whole, text) == contents


async def test_nothing_of_others_is_found_whatever_they_write(whole: Whole, db: asyncpg.Connection) -> None:
    room = await whole.room()
    await whole.ask(room, "my secret")
    mine = await db.fetchrow("SELECT user_id::text, search_week(now()) AS week FROM chatrooms_messages LIMIT 1")
    assert mine is not None
    forged = f"owner {mine['user_id']} {mine['week']}"
    whole.client.token, token = await whole.client.join(), whole.client.token
    await whole.make_pro()
    theirs = await whole.room()
    await whole.ask(theirs, f"{forged} 'owner {mine['user_id']}' secret")
    assert len(await found(whole, "secret")) >= 1
    assert all("my secret" not in content for content in await found(whole, "secret"))
    for text in (forged, f'"{forged}"', f"'{forged}'", f"secret or {forged}", f"-nothing {mine['user_id']}"):
        assert all("my secret" not in content for content in await found(whole, text)), text
    whole.client.token = token
    assert all(forged not in content for content in await found(whole, "secret"))
    assert await whole.client.call("DELETE", f"/v1/chatroom/{room}")
    assert await found(whole, "secret") == []


@pytest.mark.pooled
async def test_pages_neither_repeat_nor_lose_anything_while_messages_are_added(
    whole: Whole, db: asyncpg.Connection
) -> None:
    room = await whole.room()
    await fill(db, room, 30, "'needle ' || nr", step="10 days")
    await db.execute("UPDATE chatrooms_messages SET created_at = now() - interval '60 days' WHERE position <= 3000010")
    seen: list[str] = []
    async for contents in pages(whole, "needle", 7):
        assert len(contents) <= 7
        seen += contents
        await whole.ask(room, "another needle")
    assert [content for content in seen if "another" not in content] == seen
    assert sorted(seen) == sorted(f"needle {number}" for number in range(1, 31))
    assert seen[-1] == "needle 30"


async def test_messages_from_before_there_were_weeks_are_found(whole: Whole, db: asyncpg.Connection) -> None:
    await fill(db, await whole.room(), 3, "'old ' || nr", step="300 days", since="timestamptz '2024-01-05'")
    assert await found(whole, "old") == ["old 1", "old 2", "old 3"]


@pytest.mark.pooled
async def test_a_common_word_among_very_many_messages_touches_only_the_newest(
    whole: Whole, db: asyncpg.Connection
) -> None:
    room = await whole.room()
    await fill(db, room, 20_000, "'common word ' || nr", step="1 hour")
    whole.client.token, token = await whole.client.join(), whole.client.token
    await fill(db, await whole.room(), 5_000, "'common word of others ' || nr", step="4 hours")
    whole.client.token = token
    await db.execute("VACUUM ANALYZE chatrooms_messages")
    user = await db.fetchval("SELECT user_id FROM chatrooms_metadata WHERE id = $1", room)
    async with db.transaction():
        page = await search_store.search(db, user, "common", None, 20)
        assert [message.content for message in page.messages] == [f"common word {nr}" for nr in range(1, 21)]
        rare = await search_store.search(db, user, "15000", None, 20)
        assert [message.content for message in rare.messages] == ["common word 15000"]
        fetched = (
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'chatrooms_messages'"
        )
        assert 20 < await db.fetchval(fetched) < 1000


@pytest.mark.pooled
async def test_a_rare_phrase_of_common_words_is_looked_for_in_several_turns(
    whole: Whole, db: asyncpg.Connection
) -> None:
    text = "CASE WHEN nr = 4500 OR nr = 2000 THEN 'rare find ' || nr ELSE 'find something rare' END"
    await fill(db, await whole.room(), 4600, text, step="1 second")
    turns = [contents async for contents in pages(whole, '"rare find"', 50)]
    assert [content for contents in turns for content in contents] == ["rare find 2000", "rare find 4500"]
    assert len(turns) >= 3, "no turn looks at more than 2,000"


async def test_a_very_long_message_can_be_stored_and_its_beginning_is_found(whole: Whole) -> None:
    room = await whole.room()
    # Each letter takes four bytes, and each pair of words is three: as large as a tsvector can become.
    letters = [chr(0x20000 + number) for number in range(40_000)]
    text = "beginning " + " ".join(f"{one}-{other}" for one, other in zip(letters[::2], letters[1::2], strict=True))
    whole.gemini.script(Behaviour(text=text + " ending" + " x" * 100_000))
    assert (await whole.ask(room, "long?"))["status"] == "answered"
    assert len(await found(whole, "beginning")) == 1
    assert await found(whole, "ending") == []


async def test_new_entries_are_merged_once_and_only_by_an_owner_of_the_index(db: asyncpg.Connection) -> None:
    user, room = new_id(), new_id()
    await db.execute("INSERT INTO users (id, phone, password_hash) VALUES ($1, '+15550001111', 'x')", user)
    await db.execute("INSERT INTO chatrooms_metadata (id, user_id, name) VALUES ($1, $2, 'room')", room, user)
    await fill(db, str(room), 10, "'word ' || nr", step="1 second")
    role = f"guest_{user.hex}"
    await db.execute(f"CREATE ROLE {role}; SET ROLE {role}")
    assert await search_store.merge(db) == 0
    await db.execute(f"RESET ROLE; DROP ROLE {role}")
    assert await search_store.merge(db) > 0
    assert await search_store.merge(db) == 0
    assert len((await search_store.search(db, user, "word", None, 50)).messages) == 10


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "q"),
        ("q=", "q"),
        ("q=%20%09", "q"),
        ("q=" + "x" * 201, "q"),
        ("q=a%00b", "q"),
        ("q=x&limit=0", "limit"),
        ("q=x&cursor=%00", "cursor"),
        ("q=x&cursor=bm8", "cursor"),
        ("q=x&cursor=MQ", "cursor"),
        (f"q=x&cursor={encode_cursor('9' * 17 + '.' + '0' * 32 + '.0')}", "cursor"),
        (f"q=x&cursor={encode_cursor('1.' + '0' * 32 + '.' + '9' * 19)}", "cursor"),
        (f"q=x&cursor={encode_cursor('1.' + 'x' * 32 + '.1')}", "cursor"),
    ],
)
async def test_a_search_that_cannot_be_is_refused(whole: Whole, query: str, field: str) -> None:
    answer = await whole.client.call("GET", f"/v1/search?{query}")
    assert (answer.status, answer.code) == (422, "validation_failed"), answer.body
    assert [error["field"] for error in answer.body["errors"]] == [field]


@pytest.mark.parametrize("moment", ["0", "9" * 16])
async def test_a_cursor_of_an_odd_moment_is_harmless(whole: Whole, moment: str) -> None:
    await whole.ask(await whole.room(), "needle")
    page = await search(whole, "needle", f"&cursor={encode_cursor(f'{moment}.{0:032x}.0')}")
    assert (len(page["messages"]), page["next_cursor"]) == (2 if moment != "0" else 0, None)


@pytest.mark.parametrize(
    "text", ["%ED%A0%80", "%FF%FE", "%F0%9F%98%80", "%C3%A9%CC%81", "%EF%BF%BF", "%5Cud800", "x" * 200]
)
async def test_odd_text_is_no_failure_of_ours(whole: Whole, text: str) -> None:
    answer = await whole.client.call("GET", str(URL(f"/v1/search?q={text}", encoded=True)))
    assert answer.status in (200, 422), answer.body
