"""What clients send and get about messages and prompts."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, Struct

from gembackend.chatrooms.models import Chatroom
from gembackend.plumbing.models import Body

Status = Literal["queued", "running", "answered", "failed", "cancelled"]
UNFINISHED: tuple[Status, ...] = ("queued", "running")


class NewMessage(Body, frozen=True):
    """The body that sends a prompt."""

    prompt: Annotated[str, Meta(min_length=1, description="What to ask Gemini.")]


class Message(Struct, frozen=True, kw_only=True):
    """One message of a room; `id` is Gemini's response id with `_U` (user) or `_A` (assistant)."""

    id: str
    role: Literal["user", "assistant"]
    content: str
    created_at: datetime
    prompt_id: UUID


class PromptError(Struct, frozen=True, kw_only=True):
    """Why a prompt failed: a stable code, and a sentence for the user."""

    code: str
    message: str


class TokenUsage(Struct, frozen=True, kw_only=True):
    """What Gemini counted."""

    prompt_tokens: int
    reply_tokens: int


class Prompt(Struct, frozen=True, kw_only=True):
    """A prompt and what has become of it."""

    id: UUID
    chatroom_id: UUID
    status: Status
    prompt: str
    attempts: int
    created_at: datetime
    finished_at: datetime | None = None
    error: PromptError | None = None
    reply: Message | None = None
    usage: TokenUsage | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status not in UNFINISHED


class ReplyDelta(Struct, frozen=True, kw_only=True):
    """More of a reply that is being written: the texts of one run, from its `prompt.running` on, make up the reply."""

    prompt_id: UUID
    text: str


class LatestExchange(Struct, frozen=True, kw_only=True):
    """The newest prompt of a room, with its reply when there is one."""

    prompt: Prompt | None


class MessagePage(Struct, frozen=True, kw_only=True):
    """One page of a room's messages, oldest first."""

    messages: list[Message]
    next_cursor: str | None


class FoundMessage(Message, frozen=True, kw_only=True):
    """A message that a search found, with the room it is in."""

    chatroom_id: UUID


class SearchPage(Struct, frozen=True, kw_only=True):
    """One page of what a search found, newest first; it may be short, or empty, though there is a next one.

    `complete` is false while messages of the user are not searched yet, which they are a moment after they were stored.
    """

    messages: list[FoundMessage]
    next_cursor: str | None
    complete: bool


class RoomExport(Struct, frozen=True, kw_only=True):
    """A whole room as it was at `exported_at`.

    `messages` are oldest first; `unanswered` are the prompts that have no message: not finished by then, failed, or
    cancelled, in the order in which they were sent.
    """

    chatroom: Chatroom
    exported_at: datetime
    messages: list[Message]
    unanswered: list[Prompt]
