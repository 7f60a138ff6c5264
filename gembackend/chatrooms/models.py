"""What clients send and get about chatrooms."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct

from gembackend.plumbing.models import Body

RoomName = Annotated[str, Meta(min_length=1, max_length=100, description="What the user calls the chatroom.")]

DEFAULT_NAME = "New chat"


class NewChatroom(Body, frozen=True):
    """The body that makes a chatroom."""

    name: RoomName = DEFAULT_NAME


class ChatroomChanges(Body, frozen=True):
    """The body that renames a chatroom."""

    name: RoomName


class Chatroom(Struct, frozen=True, kw_only=True):
    """A chatroom; `updated_at` is when it was renamed or last sent a prompt."""

    id: UUID
    name: str
    created_at: datetime
    updated_at: datetime


class MessageCounts(Struct, frozen=True, kw_only=True):
    """How many messages a room has from each side."""

    user: int
    assistant: int


class ChatroomDetail(Chatroom, frozen=True, kw_only=True):
    """A chatroom with what is in it."""

    message_counts: MessageCounts
    pending_prompts: int
    last_message_at: datetime | None


class ChatroomPage(Struct, frozen=True, kw_only=True):
    """One page of a user's chatrooms, newest first."""

    chatrooms: list[Chatroom]
    next_cursor: str | None
