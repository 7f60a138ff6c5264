"""A search from its text to a page: newest first, every statement of it short, whatever is looked for and in what."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from uuid import UUID

from gembackend.messages import search_store as store
from gembackend.messages.models import FoundMessage
from gembackend.messages.search_query import Query, parse
from gembackend.messages.search_store import Hit, Place, Shelf
from gembackend.plumbing.postgres import Connection

SECONDS = 0.3
"""After so long a page is handed out as it is, and the search goes on with the next one."""
PAGE_BYTES = 2**20
"""A page has no more bytes of messages than this, or is one message."""
FIRST_BYTES, MOST_BYTES = 2**18, 2**21
"""Bytes of words that the first statement looks through, and the most that any does."""
QUICK_SECONDS, SLOW_SECONDS = 0.02, 0.05
"""A statement that took less than the one is followed by one over twice as much, more than the other by half."""
SHELVES = 64

_LAST = UUID(int=2**128 - 1), 10**18 - 1
"""The greatest prompt and position of a place."""


@dataclass(frozen=True, slots=True)
class Found:
    """Messages, newest first; from where to go on if there may be more; and whether all there are were searched.

    `unsettled` says that nothing was searched, because messages came so lately that they are worth waiting for.
    """

    messages: list[FoundMessage]
    next: Place | None
    complete: bool
    unsettled: bool = False


async def search(
    connection: Connection, user_id: UUID, text: str, before: Place | None, limit: int, *, lately: float = 0.0
) -> Found:
    """Up to `limit` of the user's messages that a text asks for, older than a place; none at all while messages of
    the last `lately` seconds are not in the search yet.

    All statements see the same moment, so that a message that is moved to a shelf meanwhile is found once.
    """
    query = parse(text)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await store.begin(connection)
        some_wait, late = await store.waiting(connection, user_id, lately)
        complete = not some_wait
        if late and lately:
            return Found([], before, complete, unsettled=True)
        if not query:
            return Found([], None, complete)
        hits, horizon = await _hits(connection, user_id, query, before, limit + 1)
        page = _bounded(hits[:limit])
        messages = await store.messages(connection, user_id, page)
    if len(page) < len(hits):
        return Found(messages, page[-1].place, complete)
    return Found(messages, Place(horizon, *_LAST) if horizon else None, complete)


async def _hits(
    connection: Connection, user_id: UUID, query: Query, before: Place | None, wanted: int
) -> tuple[list[Hit], datetime | None]:
    """The newest hits, `wanted` of them or fewer, and, if the search is not through, up to when it has come.

    Shelves may overlap in time. So what is found counts as soon as it is newer than everything on the shelves that
    are left, and only a turn that has come further than it began may be the last.
    """
    found = {hit.place: hit for hit in await store.recent(connection, user_id, query, before, wanted)}
    ahead: deque[Shelf] = deque()
    last: Shelf | None = None
    through, budget, end = False, FIRST_BYTES, monotonic() + SECONDS
    while True:
        if not ahead and not through:
            ahead.extend(await store.shelves(connection, user_id, before, last, SHELVES))
            through = len(ahead) < SHELVES
        horizon = ahead[0].newest if ahead else None
        sure = sorted((place for place in found if horizon is None or place.created_at > horizon), reverse=True)
        late = monotonic() > end and (before is None or horizon is None or horizon < before.created_at)
        if horizon is None or len(sure) >= wanted or late:
            return [found[place] for place in sure[:wanted]], horizon
        last, ids, begun = ahead[0], [ahead[0].id], monotonic()
        weight = ahead.popleft().weight
        while ahead and weight + ahead[0].weight <= budget:
            last = ahead.popleft()
            ids.append(last.id)
            weight += last.weight
        hits = await store.on_shelves(connection, user_id, ids, query, before, wanted)
        found.update((hit.place, hit) for hit in hits)
        budget = _adjusted(budget, monotonic() - begun)


def _adjusted(budget: int, seconds: float) -> int:
    """How many bytes to look through next, after a statement that took so long."""
    if seconds < QUICK_SECONDS:
        return min(MOST_BYTES, 2 * budget)
    return budget if seconds < SLOW_SECONDS else budget // 2


def _bounded(hits: Sequence[Hit]) -> list[Hit]:
    """As many of the first as fit into a page, and at least one."""
    page: list[Hit] = []
    left = PAGE_BYTES
    for hit in hits:
        left -= hit.size
        if page and left < 0:
            break
        page.append(hit)
    return page
