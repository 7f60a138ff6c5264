"""Feeds of several processes on one line, and what their attempts have claimed."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

from gembackend.live.feed import Feed
from gembackend.prompts.store import Claimed

ROOM = uuid4()


class Line:
    """Stands where Redis does: what is sent goes to every feed, as pub/sub does it, unless it is cut."""

    def __init__(self) -> None:
        self.feeds: list[Feed] = []
        self.sent: list[bytes] = []
        self.cut = False

    def __call__(self, payload: bytes) -> None:
        self.sent.append(payload)
        if not self.cut:
            for feed in self.feeds:
                feed.take(payload)


def claim(fence: int = 1, prompt_id: UUID | None = None) -> Claimed:
    """A claimed prompt of ROOM."""
    return Claimed(
        id=prompt_id or uuid4(),
        chatroom_id=ROOM,
        fence=fence,
        attempt=1,
        exhausted=False,
        taken_over=False,
        suspect=False,
        content="?",
        history=(),
        request_id="r",
        created_at=datetime.now(UTC),
        traceparent=None,
        queue_seconds=0.0,
    )
