"""Claiming with this process's settings."""

from collections.abc import Sequence
from time import monotonic
from uuid import UUID

from gembackend.plumbing import metrics
from gembackend.plumbing.postgres import Database
from gembackend.prompts import store
from gembackend.prompts.store import Claimed


class Claims:
    """Claims rooms for this process, and keeps what it has claimed.

    `history_messages` counts single messages; whole exchanges are sent, so an odd number is rounded down.
    """

    def __init__(
        self, database: Database, owner: str, *, lease_seconds: float, max_attempts: int, history_messages: int
    ) -> None:
        self._database = database
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._max_attempts = max_attempts
        self._history_messages = history_messages // 2 * 2

    async def claim(self, chatroom_ids: Sequence[UUID], *, suspects: int) -> list[Claimed]:
        """The due heads of these rooms, now this process's, at most `suspects` of them suspected of killing processes.

        Raises Fault when the database is away.
        """
        if not chatroom_ids:
            return []
        begun = monotonic()
        async with self._database.connection() as connection:
            claimed = await store.claim(
                connection,
                chatroom_ids,
                lease_seconds=self._lease_seconds,
                max_attempts=self._max_attempts,
                history_messages=self._history_messages,
                suspects=suspects,
                owner=self._owner,
            )
        metrics.CLAIM_SECONDS.observe(monotonic() - begun)
        return claimed

    async def extend(self, held: Sequence[tuple[UUID, int]]) -> set[UUID]:
        """Extend the leases of these (id, fence) pairs; tells which are still this process's."""
        async with self._database.connection() as connection:
            return await store.extend_leases(connection, held, self._lease_seconds)

    async def due(self, chatroom_ids: Sequence[UUID]) -> list[UUID]:
        """Those of the rooms that have a prompt to be claimed now."""
        if not chatroom_ids:
            return []
        async with self._database.connection() as connection:
            return await store.rooms_with_due_heads(connection, chatroom_ids)
