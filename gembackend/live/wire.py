"""What processes tell each other of prompts and rooms, and where. All of it may get lost, repeated or be late."""

from collections.abc import Iterable
from uuid import UUID

import msgspec

from gembackend.plumbing.ids import parse_id

FINISHED_CHANNEL = "gembackend:finished"
"""Where the ids of prompts are told that have ended."""
FEED_CHANNEL = "gembackend:feed"
"""Where news of rooms that are listened to is told."""


class Attend(msgspec.Struct, frozen=True, tag="attend"):
    """A process has listeners to these rooms; if it `wants`, it asks for what their prompts have said so far."""

    process: str
    rooms: list[UUID]
    wants: bool


class Changed(msgspec.Struct, frozen=True, tag="changed"):
    """A prompt of this room has changed."""

    process: str
    room: UUID


class Said(msgspec.Struct, frozen=True, tag="said"):
    """What the attempt at a prompt with this fence has said from the character `start` on."""

    process: str
    room: UUID
    prompt: UUID
    fence: int
    start: int
    text: str


News = Attend | Changed | Said

_decoder = msgspec.msgpack.Decoder(News)
encode = msgspec.msgpack.Encoder().encode


def decode(payload: bytes) -> News | None:
    """The news, or None when it cannot be read: it is of another version then."""
    try:
        news: News = _decoder.decode(payload)
    except msgspec.DecodeError:
        return None
    return news


def encode_finished(prompt_ids: Iterable[UUID]) -> str:
    """The notice that these prompts have ended."""
    return " ".join(map(str, prompt_ids))


def decode_finished(notice: bytes) -> list[UUID]:
    """The prompts that a notice names; what is no id is left out."""
    words = notice.decode("ascii", "replace").split()
    return [prompt_id for word in words if (prompt_id := parse_id(word)) is not None]
