"""Tells of every change of a prompt that this process has stored: listeners, waiters, other processes, the count."""

from collections.abc import Sequence
from uuid import UUID

from gembackend.live.feed import Feed
from gembackend.live.waiters import Waiters
from gembackend.prompts.admission import Admission
from gembackend.prompts.writer import Finished, StreamWriter, Wake


class Announcer:
    """Whoever has stored something says so here, once, after the commit; nothing here waits or fails."""

    def __init__(self, feed: Feed, waiters: Waiters, writer: StreamWriter, admission: Admission) -> None:
        self._feed = feed
        self._waiters = waiters
        self._writer = writer
        self._admission = admission

    def accepted(self, chatroom_id: UUID) -> None:
        """A prompt of this room has been accepted, and wants to be claimed."""
        self._admission.accepted()
        self._writer.tell(Wake(chatroom_id, "intake"))
        self._feed.changed([chatroom_id])

    def changed(self, chatroom_ids: Sequence[UUID]) -> None:
        """Prompts of these rooms are not as they were, but have not ended."""
        self._feed.changed(chatroom_ids)

    def ended(self, chatroom_ids: Sequence[UUID], prompt_ids: Sequence[UUID]) -> None:
        """These rooms have changed, or are no more, and with that these prompts have ended, if any."""
        self._feed.changed(chatroom_ids)
        if prompt_ids:
            self._admission.finished(len(prompt_ids))
            self._waiters.finished(prompt_ids)
            self._writer.tell(Finished(tuple(prompt_ids)))

    def cancelled(self, chatroom_id: UUID, prompt_id: UUID) -> None:
        """This prompt has ended before its time, so that its room's next one may be due at once."""
        self.ended([chatroom_id], [prompt_id])
        self._writer.tell(Wake(chatroom_id, "cancel"))
