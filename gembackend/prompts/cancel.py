"""Taking a prompt back, wherever it is: queued, or running in any process."""

from collections.abc import Sequence
from uuid import UUID

from gembackend.messages.rules import Taken
from gembackend.plumbing import logs, metrics
from gembackend.plumbing.postgres import Database
from gembackend.prompts import cancel_store as store
from gembackend.prompts.announcer import Announcer
from gembackend.prompts.pool import WorkerPool

log = logs.logger(__name__)


class Canceller:
    """Ends a prompt in the database, then tells this process, the others, and the room's next prompt.

    A process that works on it closes the call to Gemini when it hears of it, at the latest with its next heartbeat.
    """

    def __init__(self, database: Database, pool: WorkerPool, announcer: Announcer) -> None:
        self._database = database
        self._pool = pool
        self._announcer = announcer

    async def cancel(self, user_id: UUID, prompt_id: UUID) -> Taken:
        """Cancel a prompt of the user; raises Fault when the database is away."""
        async with self._database.connection() as connection:
            cancellation = await store.cancel(connection, user_id, prompt_id)
        if cancellation.chatroom_id is None:
            return "finished" if cancellation.found else "not_found"
        self._pool.abandon(prompt_id)
        self._announcer.cancelled(cancellation.chatroom_id, prompt_id)
        metrics.PROMPTS_FINISHED.labels("cancelled", "").inc()
        log.info("prompt_cancelled", prompt_id=str(prompt_id))
        return "cancelled"

    def dropped(self, chatroom_ids: Sequence[UUID], prompt_ids: Sequence[UUID]) -> None:
        """Tell everybody of rooms that have been deleted, and of the prompts that were unfinished in them."""
        for prompt_id in prompt_ids:
            self._pool.abandon(prompt_id)
        self._announcer.ended(chatroom_ids, prompt_ids)
        if prompt_ids:
            metrics.PROMPTS_FINISHED.labels("cancelled", "").inc(len(prompt_ids))
            log.info("prompts_dropped", count=len(prompt_ids))
