"""What makes up for notices and news that were lost: the database is asked about all that is waited for."""

from time import monotonic
from uuid import UUID

from gembackend.actors import Periodic
from gembackend.live import store
from gembackend.live.feed import Feed
from gembackend.live.waiters import Waiters
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database

POLL_SECONDS = 1.0
ANNOUNCE_SECONDS = 5.0
"""How often other processes are told which rooms are listened to here."""


class FinishPoll(Periodic):
    """Asks the database about everything that is waited for: what a lost notice is made up by."""

    def __init__(self, database: Database, waiters: Waiters) -> None:
        super().__init__("finish-poll", POLL_SECONDS, expected=(Fault,))
        self._database = database
        self._waiters = waiters

    async def run_once(self) -> int:
        """Ask once; tells how many of the watched prompts had ended."""
        watched = self._waiters.watched()
        if not watched:
            return 0
        async with self._database.connection() as connection:
            ended = await store.finished_among(connection, watched)
        self._waiters.finished(ended)
        return len(ended)

    async def teardown(self) -> None:
        """At the end of a drain all that could be learnt has been: let go of whoever still waits."""
        if self.stopping.is_set():
            self._waiters.close()


class FeedPoll(Periodic):
    """Asks the database which of the rooms listened to have changed: what lost news is made up by."""

    def __init__(self, database: Database, feed: Feed) -> None:
        super().__init__("feed-poll", POLL_SECONDS, expected=(Fault,))
        self._database = database
        self._feed = feed
        self._seen: dict[UUID, tuple[int, ...]] = {}
        self._announced = 0.0

    async def run_once(self) -> int:
        """Announce when it is time, then ask once; tells how many rooms had changed."""
        if monotonic() - self._announced >= ANNOUNCE_SECONDS:
            self._announced = monotonic()
            self._feed.announce()
        rooms = self._feed.rooms()
        if not rooms:
            self._seen.clear()
            return 0
        async with self._database.connection() as connection:
            states = await store.room_states(connection, rooms)
        changed = [room for room in rooms if room not in states or self._seen.get(room) != states[room]]
        self._seen = states
        for room in changed:
            self._feed.wake(room, changed=True)
        return len(changed)

    async def teardown(self) -> None:
        """At the end of a drain all that could be heard has been: let go of whoever still listens."""
        if self.stopping.is_set():
            self._feed.close()
