"""Brings what is said into the search, a moment after it was stored and in nobody's way."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from uuid import UUID

import asyncpg

from gembackend.actors import Periodic
from gembackend.messages import search_index_store as store
from gembackend.messages.search_index_store import Queued, Room, Text
from gembackend.messages.search_text import LONGEST_TEXT, words_of
from gembackend.plumbing import logs, metrics
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Connection, Database
from gembackend.plumbing.waiting import within

log = logs.logger(__name__)

INTERVAL_SECONDS = 0.5
MEASURE_SECONDS = 5.0
BATCH = 64
BATCH_BYTES = 2**18
"""A batch is so many prompts, or fewer if their messages are over so many bytes, but at least one."""
RECENT, RECENT_BYTES = 256, 2**18
"""So many messages of late of a user, and so many bytes of their words, are looked through without a shelf."""
UNCOUNTED, UNCOUNTED_BYTES = 16, 2**16
"""They are counted after so many messages, or so many bytes: that much more there may be."""
SHELF = 192
"""Messages on a shelf; no more than RECENT_BYTES, or it is one."""
ROUNDS = 4
"""Shelves made of one user's messages in a batch, at most; the next batch goes on."""
ROOMS, SHELVES = 16, 2
"""Deleted rooms seen to with a batch, and shelves of each."""
MOST_COUNTED = 10_000


class SearchIndexer(Periodic):
    """Indexes twice a second, and whenever somebody waits for it, until the queue is empty.

    Of all processes one at a time does it, a transaction a batch: what is queued, its place in the search, and that it
    is out of the queue are one commit, so that after a crash each message is there once and none is missing. Newest
    first: a long backlog, after an upgrade for example, does not keep what is said today from being found.
    """

    def __init__(self, database: Database) -> None:
        super().__init__("search-indexer", INTERVAL_SECONDS, expected=(Fault, asyncpg.PostgresError))
        self._database = database
        self._wanted = asyncio.Event()
        self._looked = asyncio.Condition()
        self._begun = self._ended = 0
        self._measured = 0.0
        self._most = BATCH
        self._trying: list[Queued] = []
        self._put_off: UUID | None = None
        self._uncounted: dict[UUID, tuple[int, int]] = {}

    async def run_once(self) -> int:
        """Index what there is; how many messages that was. A batch that fails is tried again in smaller ones.

        Each batch asks for a connection anew, so that requests get theirs in between, however long the queue is.
        """
        count, done = 0, None
        while not self.stopping.is_set():
            try:
                async with self._database.connection() as connection:
                    await self._measure(connection)
                    done = await self._look(connection)
            except (Fault, asyncpg.PostgresError):
                await self._single_out()
                raise
            if done is None:
                break
            count += done
        return count

    async def look(self, seconds: float) -> None:
        """Have the queue looked into now, and wait until that has been done, but no longer than this."""
        wanted = self._begun + 1
        self._wanted.set()
        try:
            async with asyncio.timeout(seconds), self._looked:
                await self._looked.wait_for(lambda: self._ended >= wanted)
        except TimeoutError:
            return

    async def batch(self, connection: Connection) -> int | None:
        """Index some prompts; how many messages they have, None when another process leads, or there is nothing to do
        but for what is being deleted just now."""
        async with connection.transaction():
            if not await store.lead(connection):
                return None
            queued = _fitting(await store.newest(connection, self._most))
            kept = await store.keep(
                connection,
                list({prompt.user_id for prompt in queued}),
                list({room for prompt in queued for room in prompt.chatroom_ids}),
            )
            chosen = [prompt for prompt in queued if kept.issuperset((prompt.user_id, *prompt.chatroom_ids))]
            gone = [prompt for prompt in queued if not prompt.chatroom_ids]
            self._trying = chosen
            texts = await store.texts(connection, [prompt.prompt_id for prompt in chosen], LONGEST_TEXT)
            # In a thread: a batch of odd texts takes a tenth of a second, for which the event loop need not wait.
            words = await asyncio.to_thread(_words, texts)
            await store.put(connection, texts, words)
            await store.done(connection, [*chosen, *gone])
            await self._shelve(connection, self._grown(texts))
        self._trying, self._most = [], BATCH
        metrics.SEARCH_INDEXED.inc(len(texts))
        return len(texts) if chosen or gone else None

    async def pause(self, seconds: float) -> bool:
        """Wait for a time, or until somebody wants a turn; tells whether to stop."""
        await within(self._wanted, seconds)
        self._wanted.clear()
        return self.stopping.is_set()

    def wind_down(self) -> None:
        """Do not wait any more; the batch under way is finished."""
        self._wanted.set()

    async def _look(self, connection: Connection) -> int | None:
        """Index a batch, and take out what was deleted; how many messages, None when there is no more to do here."""
        self._begun += 1
        begun, done = self._begun, None
        if not (idle := await store.idle(connection)):
            done = await self.batch(connection)
            if await self._purge(connection):
                done = done or 0
        if idle or done is not None:
            async with self._looked:
                self._ended = begun
                self._looked.notify_all()
        return done

    def _grown(self, texts: Sequence[Text]) -> list[UUID]:
        """The users of whom enough has come since they were last counted for there to be too much."""
        for text in texts:
            count, size = self._uncounted.get(text.user_id, (RECENT, 0))
            self._uncounted[text.user_id] = count + 1, size + text.size
        grown = [
            user_id
            for user_id in {text.user_id for text in texts}
            if self._uncounted[user_id][0] >= UNCOUNTED or self._uncounted[user_id][1] >= UNCOUNTED_BYTES
        ]
        if len(self._uncounted) > MOST_COUNTED:
            self._uncounted.clear()
        self._uncounted.update(dict.fromkeys(grown, (0, 0)))
        return grown

    async def _shelve(self, connection: Connection, user_ids: list[UUID]) -> None:
        """Make shelves of what is too much to be looked through every time."""
        for _ in range(ROUNDS):
            user_ids = await store.crowded(connection, user_ids, RECENT, RECENT_BYTES)
            for user_id in user_ids:
                await store.shelve(connection, user_id, SHELF, RECENT_BYTES)

    async def _purge(self, connection: Connection) -> bool:
        """Take some deleted rooms off some of their shelves; whether that got further."""
        async with connection.transaction():
            if not await store.lead(connection):
                return False
            rooms = await store.deleted_rooms(connection, ROOMS)
            kept = await store.keep(connection, list({room.user_id for room in rooms}), [])
            return any([await self._take_off(connection, room, kept) for room in rooms])

    async def _take_off(self, connection: Connection, room: Room, kept: set[UUID]) -> bool:
        """The same for one room; the shelves of a user who is being deleted go with the user."""
        shelves = await store.shelves_with(connection, room, SHELVES)
        if shelves and room.user_id not in kept:
            return False
        for shelf_id in shelves:
            await store.take_out(connection, shelf_id, room)
        if len(shelves) < SHELVES:
            await store.purged(connection, room)
        return True

    async def _single_out(self) -> None:
        """Let the next batch be smaller; a prompt that fails alone is put behind all others, which it would hold up."""
        trying, self._trying = self._trying, []
        if len(trying) > 1:
            self._most = max(1, len(trying) // 4)
        elif trying:
            if trying[0].prompt_id != self._put_off:
                log.warning("search_put_off", prompt_id=str(trying[0].prompt_id))
            self._put_off = trying[0].prompt_id
            with suppress(Fault, asyncpg.PostgresError):
                async with self._database.connection() as connection:
                    await store.put_off(connection, trying[0])

    async def _measure(self, connection: Connection) -> None:
        """Tell how much waits, now and then."""
        if monotonic() < self._measured + MEASURE_SECONDS:
            return
        backlog = await store.backlog(connection, MOST_COUNTED)
        metrics.SEARCH_BACKLOG.set(backlog.count)
        metrics.SEARCH_OLDEST_SECONDS.set(backlog.oldest_seconds)
        self._measured = monotonic()


def _words(texts: Sequence[Text]) -> list[str]:
    """The words of each text."""
    return [words_of(text.content) for text in texts]


def _fitting(queued: list[Queued]) -> list[Queued]:
    """The first of them that make a batch."""
    left = BATCH_BYTES
    for number, prompt in enumerate(queued):
        left -= prompt.size
        if left < 0:
            return queued[: max(1, number)]
    return queued
