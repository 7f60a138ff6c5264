"""Full-text search over a user's own messages."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest
from yarl import URL

from gembackend.embedded.gemini import Behaviour
from gembackend.messages.search import search
from gembackend.plumbing.postgres import Database
from gembackend.web.paging import encode_cursor
from tests.searching import NOON, found, index, indexed, looked_up, make_room, opened, owner, say
from tests.whole import Whole, whole_service


@pytest.fixture
async def whole(database_url: str, redis_url: str) -> AsyncIterator[Whole]:
    async with whole_service(database_url, redis_url) as started:
        await started.make_pro()
        yield started


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as made:
        yield made


async def pages(whole: Whole, text: str, limit: int) -> AsyncIterator[list[str]]:
    """The contents that a search finds, page by page."""
    cursor = ""
    while True:
        page = await looked_up(whole, text, f"&limit={limit}{cursor}")
        yield [message["content"] for message in page["messages"]]
        if page["next_cursor"] is None:
            return
        cursor = f"&cursor={page['next_cursor']}"


@pytest.mark.pooled
async def test_what_was_just_said_is_found_newest_first_with_its_room(whole: Whole) -> None:
    garden, kitchen = await whole.room("garden"), await whole.room("kitchen")
    whole.gemini.script(Behaviour(text="Plant Tulips in autumn."), Behaviour(text="Tomatoes and basil."))
    first = await whole.ask(garden, "When do I plant tulips?")
    second = await whole.ask(kitchen, "Soup without tulips, please")
    page = await looked_up(whole, "TULIPS")
    assert [(message["role"], message["chatroom_id"]) for message in page["messages"]] == [
        ("user", kitchen),
        ("assistant", garden),
        ("user", garden),
    ]
    assert page["messages"][1] == first["reply"] | {"chatroom_id": garden}
    assert page["messages"][0]["prompt_id"] == second["id"]
    assert (page["next_cursor"], page["complete"]) == (None, True)


SAID = [
    "„Überall“—grün。",
    "a blue sky",
    "the sky is blue",
    "ein Himmel, ganz blau",
    "the-dash 42",
    "See https://docs.example.com/guides/first-steps?lang=en or write to jo.doe@mail.example.org!",
    "我的手机是iPhone，吾輩は猫である。",
    "ภาษาไทยไม่มีช่องว่าง",
    "party 🎉 time, שלום עולם",
]


QUERIES: list[tuple[str, list[str]]] = [
    ("blue sky", ["the sky is blue", "a blue sky"]),
    ('"blue sky"', ["a blue sky"]),
    ('"the sky"', ["the sky is blue"]),
    ("sky -is", ["a blue sky"]),
    ('sky -"blue sky"', ["the sky is blue"]),
    ('-"blue sky" -the -example -猫 -ไทย -party', ["ein Himmel, ganz blau", "„Überall“—grün。"]),
    ("himmel or blue", ["ein Himmel, ganz blau", "the sky is blue", "a blue sky"]),
    ("the", ["the-dash 42", "the sky is blue"]),
    ("the-dash", ["the-dash 42"]),
    ("42", ["the-dash 42"]),
    ("“blue sky”", ["a blue sky"]),
    ("ÜBERALL", ["„Überall“—grün。"]),
    ("grün", ["„Überall“—grün。"]),
    ("blu", ["the sky is blue", "a blue sky"]),
    ('"blu"', []),
    ("sky -blu", ["the sky is blue", "a blue sky"]),
    ("lue", []),
    ("sky is, blue", ["the sky is blue"]),
    ("docs.example.com", SAID[5:6]),
    ("example guides", SAID[5:6]),
    ("https://docs.example.com/guides/first-steps?lang=en", SAID[5:6]),
    ("jo.doe@mail.example.org", SAID[5:6]),
    ("doe", SAID[5:6]),
    ("mail.ex", SAID[5:6]),
    ("手机", SAID[6:7]),
    ("輩は猫で", SAID[6:7]),
    ("猫", SAID[6:7]),
    ("機手", []),
    ("手机 猫で", SAID[6:7]),
    ("猫 -手机", []),
    ("iphone", SAID[6:7]),
    ("是iphone", SAID[6:7]),
    ("ไทย", SAID[7:8]),
    ("ช่องว่", SAID[7:8]),
    ("🎉", SAID[8:9]),
    ("שלו", SAID[8:9]),
    ("-" * 33, []),
    ("- " * 50, []),
    ("a" + "-" * 33 + "blue", ["a blue sky"]),
    ("\u202eblue\u202c sky", ["the sky is blue", "a blue sky"]),
    ('blue "sky', ["the sky is blue", "a blue sky"]),
    ("blue nowhere", []),
    ("?!", []),
    ("...", []),
    ('""', []),
    ("-", []),
    ("& | ! <-> :*", []),
    ("'; DROP TABLE users; --", []),
    ("\\", []),
    ("blue & sky)", ["the sky is blue", "a blue sky"]),
]
"""What is searched for, and what of SAID is found, newest first."""


async def test_a_query_is_read_as_a_search_engine_reads_it(database: Database, db: asyncpg.Connection) -> None:
    room = await make_room(db)
    await say(db, room, SAID)
    assert await index(database) == len(SAID)
    user_id, otherwise = await owner(db, room), []
    for text, contents in QUERIES:
        answer = await search(db, user_id, text, None, 50)
        found = [message.content for message in answer.messages]
        if (found, answer.next, answer.complete) != (contents, None, True):
            otherwise.append((text, found, contents))
    assert otherwise == []


async def test_nothing_of_others_is_found_and_nothing_that_was_deleted(whole: Whole, db: asyncpg.Connection) -> None:
    room = await whole.room()
    await whole.ask(room, "my secret")
    assert len(await found(whole, "secret")) >= 1
    whole.client.token, token = await whole.client.join(), whole.client.token
    await whole.make_pro()
    theirs = await whole.room()
    await whole.ask(theirs, "their secret")
    for text in ("secret", "secret or my", "-nothing", f"secret or {room}"):
        assert all("my secret" not in content for content in await found(whole, text)), text
    whole.client.token = token
    assert all("their" not in content for content in await found(whole, "secret"))
    assert (await whole.client.call("DELETE", f"/v1/chatroom/{room}")).status == 204
    assert await found(whole, "secret") == []
    assert {chatroom_id for chatroom_id, _ in await indexed(db)} == {UUID(theirs)}


@pytest.mark.pooled
async def test_pages_neither_repeat_nor_lose_anything_while_messages_are_added(
    whole: Whole, db: asyncpg.Connection
) -> None:
    room = await whole.room()
    times = [NOON - timedelta(days=max(10 * number, 60)) for number in range(1, 31)]
    await say(db, UUID(room), [f"needle {number}" for number in range(1, 31)], times)
    seen: list[str] = []
    async for contents in pages(whole, "needle", 7):
        assert len(contents) <= 7
        seen += contents
        await whole.ask(room, "another needle")
    assert [content for content in seen if "another" not in content] == seen
    assert sorted(seen) == sorted(f"needle {number}" for number in range(1, 31))
    assert seen[-1] == "needle 30"


async def test_a_page_is_bounded_in_bytes_and_has_at_least_one_message(whole: Whole, db: asyncpg.Connection) -> None:
    sizes = [300_000, 300_000, 300_000, 300_000, 2_000_000, 10, 10]
    await say(db, UUID(await whole.room()), [f"needle {number} ".ljust(size, "x") for number, size in enumerate(sizes)])
    turns = [[content.split(" ")[1] for content in contents] async for contents in pages(whole, "needle", 50)]
    assert turns == [["6", "5"], ["4"], ["3", "2", "1"], ["0"]]


async def test_a_very_long_message_can_be_stored_and_its_beginning_is_found(whole: Whole) -> None:
    room = await whole.room()
    # Each letter takes four bytes, and each pair of words is three: as large as a tsvector can become.
    letters = [chr(0x20000 + number) for number in range(40_000)]
    text = "beginning " + " ".join(f"{one}-{other}" for one, other in zip(letters[::2], letters[1::2], strict=True))
    whole.gemini.script(Behaviour(text=text + " ending" + " x" * 100_000))
    assert (await whole.ask(room, "long?"))["status"] == "answered"
    assert len(await found(whole, "beginning")) == 1
    assert await found(whole, "ending") == []


REFUSED = [
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
]


async def test_a_search_that_cannot_be_is_refused(whole: Whole) -> None:
    for query, field in REFUSED:
        answer = await whole.client.call("GET", f"/v1/search?{query}")
        assert (answer.status, answer.code) == (422, "validation_failed"), answer.body
        assert [error["field"] for error in answer.body["errors"]] == [field]


async def test_no_query_and_no_cursor_is_a_failure_of_ours(whole: Whole) -> None:
    await whole.ask(await whole.room(), "needle")
    for moment, count in (("0", 0), ("9" * 16, 2)):
        page = await looked_up(whole, "needle", f"&cursor={encode_cursor(f'{moment}.{0:032x}.0')}")
        assert (len(page["messages"]), page["next_cursor"]) == (count, None)
    odd = [
        "%ED%A0%80",
        "%FF%FE",
        "%F0%9F%98%80",
        "%C3%A9%CC%81",
        "%EF%BF%BF",
        "%5Cud800",
        "x" * 200,
        "-" * 200,
        "%22" * 200,
    ]
    odd += [
        "%E2%80%AE" * 200,
        "a%20or%20" * 40,
        "%22a%22%20-" * 28,
        "%EF%B7%BA" * 200,
        "%CC%81%CC%A7" * 100,
        "(%26%7C)!" * 50,
    ]
    for text in odd:
        answer = await whole.client.call("GET", str(URL(f"/v1/search?q={text}", encoded=True)))
        assert answer.status in (200, 422), (text, answer.body)
