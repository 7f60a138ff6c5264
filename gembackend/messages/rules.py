"""What is asked of the prompt engine when a message is sent, and what it answers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

Decision = Literal[
    "accepted", "replayed", "key_reused", "not_found", "room_busy", "daily_limit_reached", "backlog_full"
]


@dataclass(frozen=True, slots=True)
class NewPrompt:
    """A prompt to accept. Its id is made by the sender, who may so watch it before it exists.

    `regenerates` is the first of the prompts that it asks once more; `traceparent` is the W3C trace context of the
    request that sends it, when traces are on.
    """

    id: UUID
    user_id: UUID
    chatroom_id: UUID
    content: str
    idempotency_key: str | None
    request_id: str
    traceparent: str | None = None
    regenerates: UUID | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of it. `prompt_id` and `accepted_at` are those of the earlier prompt when it was replayed."""

    decision: Decision
    prompt_id: UUID | None = None
    accepted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Regenerable:
    """A prompt that somebody wants to ask once more.

    `root` is the first of the prompts that ask the same, `finished` whether it has ended, `latest` whether no prompt
    behind it has, and `key_known` whether the request's Idempotency-Key has been used.
    """

    chatroom_id: UUID
    content: str
    root: UUID
    finished: bool
    latest: bool
    key_known: bool


Accept = Callable[[NewPrompt], Awaitable[Verdict]]
"""Asks the engine to accept a prompt; raises Fault when it cannot decide at the moment."""


Taken = Literal["cancelled", "finished", "not_found"]
"""What came of taking a prompt back."""

Cancel = Callable[[UUID, UUID], Awaitable[Taken]]
"""Asks the engine to cancel a prompt (user id, prompt id); raises Fault when it cannot at the moment."""


def problem_with(content: str, longest: int) -> str | None:
    """What is wrong with a prompt's text, or None."""
    if not content.strip():
        return "must not be blank"
    if len(content) > longest:
        return f"must be at most {longest} characters"
    return None
