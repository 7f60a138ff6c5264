"""Keeps the search index quick to write: merges what was written lately, so that no commit of answers has to."""

from gembackend.actors import Periodic
from gembackend.messages import search_store
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database

INTERVAL_SECONDS = 1.0


class SearchKeeper(Periodic):
    """Merges every INTERVAL_SECONDS, one process of all at a time."""

    def __init__(self, database: Database) -> None:
        super().__init__("search-keeper", INTERVAL_SECONDS, expected=(Fault,))
        self._database = database

    async def run_once(self) -> int:
        """Merge what there is; how many pages that was."""
        async with self._database.connection() as connection:
            return await search_store.merge(connection)
