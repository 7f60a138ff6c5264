"""What processes tell each other about rooms that are listened to. Every message may get lost, repeated or be late."""

from uuid import UUID

import msgspec


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


Message = Attend | Changed | Said

_decoder = msgspec.msgpack.Decoder(Message)
encode = msgspec.msgpack.Encoder().encode


def decode(payload: bytes) -> Message | None:
    """The message, or None when it cannot be read: it is of another version then."""
    try:
        message: Message = _decoder.decode(payload)
    except msgspec.DecodeError:
        return None
    return message
