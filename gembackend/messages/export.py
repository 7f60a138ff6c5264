"""A whole room as one JSON document, in pieces: neither the room nor a connection is held while a client reads."""

from collections.abc import AsyncGenerator, AsyncIterator
from uuid import UUID

import msgspec

from gembackend.chatrooms import store as chatrooms
from gembackend.messages import export_store as store
from gembackend.messages.models import Message, Prompt
from gembackend.plumbing.faults import not_found
from gembackend.plumbing.share import Lender

PAGE = 100
"""How many messages are in memory at once, and no more bytes than a page of the list has."""

_encode = msgspec.json.Encoder().encode


async def pieces(database: Lender, user_id: UUID, chatroom_id: UUID) -> AsyncGenerator[bytes, None]:
    """The document, which is a `RoomExport`, as the room is at the first piece; raises Fault when it cannot go on.

    Each page takes a connection for one statement. What is added to the room meanwhile is left out, and a room that
    is deleted meanwhile is a Fault, so that an end is always the end of the whole.
    """
    async with database.connection() as connection:
        begun = await store.begin(connection, user_id, chatroom_id)
    if begun is None:
        raise not_found("chatroom")
    head = b'{"chatroom":' + _encode(begun.chatroom) + b',"exported_at":' + _encode(begun.exported_at)
    yield head + b',"messages":['
    first = True
    async for messages in _messages(database, user_id, begun):
        yield _listed(messages, first=first)
        first = False
    yield b'],"unanswered":['
    first = True
    async for prompts in _unanswered(database, user_id, begun):
        yield _listed(prompts, first=first)
        first = False
    async with database.connection() as connection:
        if not await chatrooms.exists(connection, user_id, chatroom_id):
            raise not_found("chatroom")
    yield b"]}"


async def _messages(database: Lender, user_id: UUID, begun: store.Begun) -> AsyncIterator[list[Message]]:
    """The messages up to the last position there was, a page at a time."""
    after = -1
    while after < begun.last_position:
        async with database.connection() as connection:
            page = await store.messages(connection, user_id, begun, after, PAGE)
        if not page:
            raise not_found("chatroom")
        after = page[-1][0]
        yield [message for _, message in page]


async def _unanswered(database: Lender, user_id: UUID, begun: store.Begun) -> AsyncIterator[list[Prompt]]:
    """The prompts that ended without an answer, a page at a time, and among them those that had not ended."""
    unfinished, after, more = list(begun.unfinished), 0, True
    while more:
        async with database.connection() as connection:
            page, more = await store.ended_unanswered(connection, user_id, begun, after, PAGE)
        after = page[-1][0] if more else begun.last_sequence
        due = [numbered for numbered in unfinished if numbered[0] <= after]
        unfinished = unfinished[len(due) :]
        if together := sorted([*page, *due], key=lambda numbered: numbered[0]):
            yield [prompt for _, prompt in together]


def _listed(items: list[Message] | list[Prompt], *, first: bool) -> bytes:
    """Items of a JSON list; `first` says that none are before them."""
    return (b"" if first else b",") + b",".join(map(_encode, items))
