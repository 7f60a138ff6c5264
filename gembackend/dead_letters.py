"""Dead letters for an operator: prompts and Stripe events that gave up, as tables or JSON lines, and put back."""

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import asyncpg
import msgspec

from gembackend.billing import inbox_store as events
from gembackend.billing.inbox_store import ParkedEvent
from gembackend.config import Settings
from gembackend.plumbing.database_login import reason
from gembackend.plumbing.ids import parse_id
from gembackend.plumbing.postgres import Connection, Database, DatabaseAway, SchemaMismatch, check_schema
from gembackend.prompts import dead_letter_store as prompts
from gembackend.prompts.dead_letter_store import DeadLetter

Say = Callable[[str], None]
Row = tuple[str, ...]

_PROMPTS = ("PROMPT", "FAILED AT (UTC)", "ATTEMPTS", "CODE", "WHAT THE USER READS")
_EVENTS = ("STRIPE EVENT", "PARKED AT (UTC)", "ATTEMPTS", "CODE", "TYPE AND CUSTOMER")
_EVENT_ID = "evt_"


async def show(settings: Settings, most: int, *, as_json: bool, say: Say) -> int:
    """Print up to `most` dead letters of each kind, newest first; the exit status is 0 when they could be read."""

    async def work(database: Database) -> int:
        async with database.connection() as connection:
            letters = await prompts.dead_letters(connection, most)
            parked = await events.parked(connection, most)
        lines = [_json(letter) for letter in (*letters, *parked)] if as_json else _tables(letters, parked)
        for line in lines:
            say(line)
        return 0

    return await _with_database(settings, work, say)


async def replay(settings: Settings, ids: Sequence[str] | None, *, as_json: bool, say: Say) -> int:
    """Queue these dead letters again, or all of them; the exit status is 1 when one of the ids is none."""

    async def work(database: Database) -> int:
        wanted_prompts = [prompt_id for word in ids or () if (prompt_id := parse_id(word))]
        wanted_events = None if ids is None else [word for word in ids if word.startswith(_EVENT_ID)]
        async with database.connection() as connection:
            pending = await events.replay(connection, wanted_events)
            queued = await _queue(connection, None if ids is None else wanted_prompts)
        replayed = [str(prompt_id) for prompt_id in queued]
        missing = [word for word in ids or () if word not in (*replayed, *pending)]
        for line in _as_json(replayed, pending, missing) if as_json else _in_words(replayed, pending, missing):
            say(line)
        return 1 if missing else 0

    return await _with_database(settings, work, say)


async def _queue(connection: Connection, wanted: Sequence[UUID] | None) -> list[UUID]:
    """Queue prompts again, so many at once that no statement takes long; None: all there are, each once, though it may
    fail again meanwhile."""
    queued: dict[UUID, None] = {}
    if wanted is None:
        while (some := await prompts.replay(connection, None)) and queued.keys().isdisjoint(some):
            queued |= dict.fromkeys(some)
        return list(queued)
    for first in range(0, len(wanted), prompts.REPLAYED_AT_ONCE):
        queued |= dict.fromkeys(await prompts.replay(connection, wanted[first : first + prompts.REPLAYED_AT_ONCE]))
    return list(queued)


async def _with_database(settings: Settings, work: Callable[[Database], Awaitable[int]], say: Say) -> int:
    database = Database.of(settings, 2, wait_seconds=settings.database_connect_seconds + 0.5)
    try:
        await database.open()
        async with database.connection() as connection:
            await check_schema(connection)
        return await work(database)
    except DatabaseAway as away:
        say(f"gembackend: cannot use {away.told}")
        return 1
    except (SchemaMismatch, asyncpg.PostgresError) as error:
        say(f"gembackend: {reason(error) if isinstance(error, asyncpg.PostgresError) else error}")
        return 1
    finally:
        await database.close()


def _as_json(replayed: Sequence[str], pending: Sequence[str], missing: Sequence[str]) -> list[str]:
    told = [(replayed, "queued"), (pending, "pending"), (missing, "not_found")]
    return [_json({"id": word, "status": status}) for words, status in told for word in words]


def _in_words(replayed: Sequence[str], pending: Sequence[str], missing: Sequence[str]) -> list[str]:
    lines = [f"{word} is not a dead letter." for word in missing]
    if pending:
        lines.insert(0, f"{len(pending)} Stripe events pending again.")
    if replayed or not pending:
        lines.insert(0, f"{len(replayed)} queued again, each at the tail of its chatroom.")
    return lines


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _tables(letters: Sequence[DeadLetter], parked: Sequence[ParkedEvent]) -> list[str]:
    """A table for each kind that there is."""
    failed = [
        (str(one.id), f"{one.finished_at:%F %T}", str(one.attempts), one.error_code, one.error_message)
        for one in letters
    ]
    stuck = [
        (one.id, f"{one.finished_at:%F %T}", str(one.attempts), one.error_code, f"{one.type} {one.customer_id}")
        for one in parked
    ]
    if not failed and not stuck:
        return ["No dead letters."]
    return (_table(_PROMPTS, failed) if failed else []) + (_table(_EVENTS, stuck) if stuck else [])


def _table(columns: Row, rows: Sequence[Row]) -> list[str]:
    widths = [max(len(row[column]) for row in (columns, *rows)) for column in range(len(columns))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    ]
