"""The token version of each user, never more than FRESH_SECONDS behind the database."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from time import monotonic
from uuid import UUID

from gembackend.plumbing import metrics
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database
from gembackend.users import store

FRESH_SECONDS = 0.9
"""Counted from before the query is sent, so that a change is seen everywhere within a second of its commit."""
CAPACITY = 20_000
BATCH = 1000


@dataclass(frozen=True, slots=True)
class _Kept:
    """A version as of some moment; None: there is no such user."""

    version: int | None
    fresh_until: float


class TokenVersions:
    """Answers out of memory while fresh, else out of the database; what is missing at one time is one query.

    The database is asked and nobody else, so a change ends sessions in every process with Redis emptied or away;
    with the database away there is a Fault, never an answer.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: OrderedDict[UUID, _Kept] = OrderedDict()
        self._waiting: dict[UUID, asyncio.Future[int | None]] = {}
        self._loader: asyncio.Task[None] | None = None

    async def current(self, user_id: UUID, *, at_least: int) -> int | None:
        """The user's version, None if there is no such user; raises Fault("database_unavailable").

        `at_least` is a version that is known to exist: something older in memory does not count.
        """
        kept = self._kept.get(user_id)
        if kept and kept.fresh_until > monotonic() and (kept.version is None or kept.version >= at_least):
            return kept.version
        waiting = self._waiting.get(user_id)
        if waiting is None:
            waiting = self._waiting[user_id] = asyncio.get_running_loop().create_future()
        if self._loader is None or self._loader.done():
            self._loader = asyncio.create_task(self._load(), name="token-versions")
        return await asyncio.shield(waiting)

    def changed(self, user_id: UUID, version: int | None) -> None:
        """Know at once what this process has just committed; None: the user is gone."""
        self._keep(user_id, version, monotonic())

    async def close(self) -> None:
        """End the query under way; whoever waits for it is told."""
        if self._loader is not None:
            self._loader.cancel()
            await asyncio.gather(self._loader, return_exceptions=True)

    async def _load(self) -> None:
        asked: dict[UUID, asyncio.Future[int | None]] = {}
        try:
            while self._waiting:
                asked = dict(list(self._waiting.items())[:BATCH])
                for user_id in asked:
                    del self._waiting[user_id]
                began = monotonic()
                async with self._database.connection() as connection:
                    found = await store.token_versions(connection, list(asked))
                metrics.TOKEN_VERSIONS.observe(len(asked))
                for user_id, waiting in asked.items():
                    waiting.set_result(self._keep(user_id, found.get(user_id), began))
        except asyncio.CancelledError:
            self._fail(asked, Fault("shutting_down", "This process is shutting down; try again."))
            raise
        except Exception as error:
            self._fail(asked, error)

    def _fail(self, asked: dict[UUID, asyncio.Future[int | None]], error: Exception) -> None:
        """Tell those of the failed query and those behind it alike: a second attempt would keep them too long."""
        behind, self._waiting = self._waiting, {}
        for waiting in (*asked.values(), *behind.values()):
            if not waiting.done():
                waiting.set_exception(error)

    def _keep(self, user_id: UUID, version: int | None, as_of: float) -> int | None:
        """Versions only rise and users do not come back, so a slow answer never hides a newer one."""
        earlier = self._kept.pop(user_id, None)
        if earlier is not None and version is not None:
            version = None if earlier.version is None else max(version, earlier.version)
        self._kept[user_id] = _Kept(version, as_of + FRESH_SECONDS)
        if len(self._kept) > CAPACITY:
            self._kept.popitem(last=False)
        return version
