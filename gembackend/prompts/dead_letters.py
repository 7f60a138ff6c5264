"""Dead letters for an operator: a table or JSON lines of what gave up, and putting it back."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from gembackend.config import Settings
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.ids import parse_id
from gembackend.plumbing.postgres import Database, SchemaMismatch, check_schema
from gembackend.prompts import upkeep_store as store
from gembackend.prompts.upkeep_store import DeadLetter

Say = Callable[[str], None]

_COLUMNS = ("PROMPT", "FAILED AT (UTC)", "ATTEMPTS", "CODE", "WHAT THE USER READS")


async def show(settings: Settings, most: int, *, as_json: bool, say: Say) -> int:
    """Print up to `most` dead letters, newest first; the exit status is 0 when the database could be read."""

    async def work(database: Database) -> int:
        async with database.connection() as connection:
            letters = await store.dead_letters(connection, most)
        for line in _as_json(letters) if as_json else _table(letters):
            say(line)
        return 0

    return await _with_database(settings, work, say)


async def replay(settings: Settings, ids: Sequence[str] | None, *, as_json: bool, say: Say) -> int:
    """Queue these dead letters again, or all of them; the exit status is 1 when one of the ids is none."""

    async def work(database: Database) -> int:
        wanted = None if ids is None else [prompt_id for word in ids if (prompt_id := parse_id(word))]
        async with database.connection() as connection:
            replayed = await store.replay(connection, wanted)
        missing = [word for word in ids or () if parse_id(word) not in replayed]
        if as_json:
            for prompt_id in replayed:
                say(_json({"id": prompt_id, "status": "queued"}))
        else:
            say(f"{len(replayed)} queued again, each at the tail of its chatroom.")
        for word in missing:
            say(_json({"id": word, "status": "not_found"}) if as_json else f"{word} is not a dead letter.")
        return 1 if missing else 0

    return await _with_database(settings, work, say)


async def _with_database(settings: Settings, work: Callable[[Database], Awaitable[int]], say: Say) -> int:
    assert settings.database_url
    database = Database(settings.database_url, 2)
    try:
        await database.open()
        async with database.connection() as connection:
            await check_schema(connection)
        return await work(database)
    except (Fault, SchemaMismatch) as error:
        say(f"gembackend: {error}")
        return 1
    finally:
        await database.close()


def _as_json(letters: Sequence[DeadLetter]) -> list[str]:
    return [_json(letter) for letter in letters]


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _table(letters: Sequence[DeadLetter]) -> list[str]:
    if not letters:
        return ["No dead letters."]
    rows = [
        (
            str(letter.id),
            f"{letter.finished_at:%Y-%m-%d %H:%M:%S}",
            str(letter.attempts),
            letter.error_code,
            letter.error_message,
        )
        for letter in letters
    ]
    widths = [max(len(row[column]) for row in (_COLUMNS, *rows)) for column in range(len(_COLUMNS))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (_COLUMNS, *rows)
    ]
