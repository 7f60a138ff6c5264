"""Older messages stand on shelves, many together: all are found, in order, once; what was deleted is gone from them."""

import random
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from gembackend.messages import search as searching
from gembackend.messages import search_indexer as indexing
from gembackend.messages.search import search
from gembackend.plumbing.postgres import Database
from tests.searching import NOON, index, indexed, make_room, opened, owner, pages, say, stored, waiting


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as made:
        yield made


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shelves are made of a few messages, and a statement looks at one of them."""
    monkeypatch.setattr(indexing, "RECENT", 8)
    monkeypatch.setattr(indexing, "SHELF", 6)
    monkeypatch.setattr(indexing, "UNCOUNTED", 1)
    monkeypatch.setattr(indexing, "ROUNDS", 100)
    monkeypatch.setattr(searching, "FIRST_BYTES", 1)
    monkeypatch.setattr(searching, "MOST_BYTES", 1)
    monkeypatch.setattr(searching, "SHELVES", 3)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("order", ["as it was said", "newest first", "at random"])
async def test_what_is_found_is_what_there_is_in_whatever_order_it_came(
    db: asyncpg.Connection, database: Database, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    dice = random.Random(order)
    words = ["blue", "sky", "bluebell", "the", "猫です", "x"]
    room = await make_room(db)
    user, rooms = await owner(db, room), [room]
    rooms.append(await make_room(db, user))
    said = [(NOON + timedelta(minutes=number // 2), " ".join(dice.choices(words, k=4))) for number in range(90)]
    if order == "newest first":
        said.reverse()
    if order == "at random":
        dice.shuffle(said)
    for start in range(0, len(said), 9):
        part = said[start : start + 9]
        await say(db, rooms[start % 2], [text for _, text in part], [time for time, _ in part])
        await index(database)
    assert await db.fetchval("SELECT count(*) FROM search_shelves") >= 12
    rows = await db.fetch(
        "SELECT content FROM chatrooms_messages ORDER BY created_at DESC, prompt_id DESC, position DESC"
    )
    everything = [f" {row['content']} " for row in rows]
    wanted = {
        "blue": [text for text in everything if " blue" in text],
        '"blue"': [text for text in everything if " blue " in text],
        "blue -sky": [text for text in everything if " blue" in text and " sky " not in text],
        '"blue sky" or "x x"': [text for text in everything if " blue sky " in text or " x x " in text],
        "猫で": [text for text in everything if "猫で" in text],
        "-the": [text for text in everything if " the " not in text],
        '"blue the sky x"': [text for text in everything if " blue the sky x " in text],
        "nowhere": [],
    }
    for seconds in (60.0, -1.0):  # as long as it takes, and as if every page were late
        monkeypatch.setattr(searching, "SECONDS", seconds)
        for text, contents in wanted.items():
            for limit in (3, 50, 200):
                found = await pages(db, user, text, limit)
                assert [f" {m.content} " for page in found for m in page.messages] == contents, (text, limit)
                if seconds > 0:
                    assert all(len(page.messages) == limit for page in found[:-1]), "a page is full but for the last"


@pytest.mark.usefixtures("narrow")
async def test_the_words_of_a_deleted_room_leave_the_shelves_and_those_of_a_deleted_user_too(
    db: asyncpg.Connection, database: Database
) -> None:
    kept = await make_room(db)
    user = await owner(db, kept)
    gone, queued = await make_room(db, user), await make_room(db, user)
    for number in range(8):
        await say(db, kept, [f"kept {number} {letter}" for letter in "abc"])
        await say(db, gone, [f"secret {number} {letter}" for letter in "abc"])
        await index(database)
    await say(db, queued, ["secret that was never indexed"])
    await db.execute("DELETE FROM chatrooms_metadata WHERE id = ANY ($1)", [gone, queued])
    assert (await search(db, user, "secret", None, 50)).messages == []
    await index(database)
    left = await db.fetchval(
        "SELECT string_agg(words::text || lexicon, ' ') FROM search_shelves s WHERE user_id = $1", user
    )
    assert "secret" not in left and "kept" in left
    assert await indexed(db) == await stored(db)
    assert await db.fetchval("SELECT count(*) FROM search_purges") == await waiting(db) == 0
    assert sum(len(page.messages) for page in await pages(db, user, "kept", 5)) == 24
    await db.execute("DELETE FROM users WHERE id = $1", user)
    await index(database)
    for table in ("search_queue", "search_purges", "search_recent", "search_shelves"):
        assert await db.fetchval(f"SELECT count(*) FROM {table}") == 0, table


@pytest.mark.usefixtures("narrow")
async def test_a_shelf_that_cannot_be_cleared_does_not_keep_messages_from_being_found(
    db: asyncpg.Connection, database: Database
) -> None:
    room = await make_room(db)
    user = await owner(db, room)
    other = await make_room(db, user)
    await say(db, room, [f"secret {number}" for number in range(30)])
    await index(database)
    await db.execute("DELETE FROM chatrooms_metadata WHERE id = $1", room)
    await db.execute(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$;
        CREATE TRIGGER refuse BEFORE DELETE ON search_shelves FOR EACH ROW EXECUTE FUNCTION refuse();
        """
    )
    await say(db, other, ["said meanwhile"])
    with pytest.raises(asyncpg.RaiseError):
        await index(database)
    assert len((await search(db, user, "meanwhile", None, 50)).messages) == 1
    await db.execute("DROP TRIGGER refuse ON search_shelves")
    await index(database)
    assert await indexed(db) == await stored(db)
