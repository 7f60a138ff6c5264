"""Messages read back over HTTP: a room page by page, a room as a whole, and whatever has certain words."""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from aiohttp import web
from msgspec import Meta

from gembackend.chatrooms import store as chatrooms
from gembackend.messages import export, store
from gembackend.messages.models import MessagePage, RoomExport, SearchPage
from gembackend.messages.search import search
from gembackend.messages.search_store import Place
from gembackend.plumbing.faults import Fault, invalid, not_found
from gembackend.plumbing.postgres import Database
from gembackend.plumbing.share import Share
from gembackend.web.body import json_reply
from gembackend.web.paging import PAGING, encode_cursor, page_of
from gembackend.web.params import path_id
from gembackend.web.routing import Parameter, Route
from gembackend.web.session import session_of
from gembackend.web.streaming import stream_reply

GROUP = "Messages"
LONGEST_QUERY = 200
EXPORT_WAIT_SECONDS = 10.0
"""An export waits longer for each of its turns than a search: begun, it is worth nothing unless it is finished."""
LATELY_SECONDS = 5.0
LOOKS = (0.05, 0.1, 0.2, 0.3)
"""A search waits at most so many seconds, again and again, for messages of the user that were stored that lately."""

QUERY = Parameter(
    "q",
    "query",
    (
        'What to look for: words, or their beginnings, that must all be there, `"a phrase"` of whole words, `or`, and '
        "`-` before a word or phrase that must not be there."
    ),
    Annotated[str, Meta(min_length=1, max_length=LONGEST_QUERY, pattern=r"^[^\u0000]*[^\s\u0000][^\u0000]*$")],
    "blue sky",
    required=True,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PLACE = re.compile(r"([0-9]{1,16})\.([0-9a-f]{32})\.([0-9]{1,18})", re.ASCII)


class ReadingRoutes:
    """The endpoints that read messages."""

    def __init__(self, database: Database, look: Callable[[float], Awaitable[None]]) -> None:
        """`look` has waiting messages brought into the search, and waits for that for some seconds."""
        self._database = database
        self._share = Share(database, "searches and exports")
        self._look = look

    def table(self) -> list[Route]:
        """What is where."""
        room = "/v1/chatroom/{chatroom_id}"
        return [
            Route(
                "GET",
                f"{room}/message/all",
                self.page,
                "Every message, oldest first",
                reply=MessagePage,
                parameters=PAGING,
                group=GROUP,
                description=(
                    "The room's messages, oldest first. A page ends after about 1 MiB of texts, although fewer than "
                    "`limit` are on it: `next_cursor` says whether there are more."
                ),
            ),
            Route(
                "GET",
                f"{room}/export",
                self.export,
                "The whole room as one document",
                reply=RoomExport,
                headers=("Content-Disposition",),
                errors=("rate_limited", "busy"),
                stream=True,
                group=GROUP,
                description=(
                    "The room as it is when the request arrives, streamed, to be saved as a file. A transfer that ends "
                    "without its last chunk is not whole: ask again. A client that reads nothing for 15 seconds is cut "
                    "off."
                ),
            ),
            Route(
                "GET",
                "/v1/search",
                self.search,
                "Search all messages, newest first",
                reply=SearchPage,
                parameters=(QUERY, *PAGING),
                errors=("rate_limited", "busy"),
                group=GROUP,
                description=(
                    "The user's messages, of every room, that have the words of `q`, newest first. A word is found by "
                    "its beginning, without regard to case; words are what is between blanks and signs, the parts of "
                    "addresses too. In scripts without blanks (Chinese, Japanese, Thai and others) any part is found. "
                    "No word is too common. A page may be short, or empty, although `next_cursor` is not null: the "
                    "search then goes on there; a page is also not longer than 1 MiB. Of a very long message only the "
                    "first 65,536 characters are searched. What was just said is found a moment later; while some of "
                    "the user's messages wait for that, `complete` is false. A user who searches too much at once gets "
                    "429, all of them 503, with `Retry-After`."
                ),
            ),
        ]

    async def page(self, request: web.Request) -> web.StreamResponse:
        """The room's messages, oldest first."""
        user_id, page = session_of(request).user_id, page_of(request)
        chatroom_id = path_id(request, "chatroom_id", "chatroom")
        if page.cursor is not None and not (page.cursor.isascii() and page.cursor.isdigit() and len(page.cursor) < 19):
            raise _no_cursor()
        async with self._database.connection() as connection:
            found, more = await store.page(connection, user_id, chatroom_id, int(page.cursor or -1), page.limit)
            if not found and not await chatrooms.exists(connection, user_id, chatroom_id):
                raise not_found("chatroom")
        cursor = encode_cursor(str(found[-1][0])) if more else None
        return json_reply(MessagePage(messages=[message for _, message in found], next_cursor=cursor))

    async def export(self, request: web.Request) -> web.StreamResponse:
        """The whole room, to be saved as a file."""
        chatroom_id, user_id = path_id(request, "chatroom_id", "chatroom"), session_of(request).user_id
        return await stream_reply(
            request,
            export.pieces(self._share.of(user_id, wait=EXPORT_WAIT_SECONDS), user_id, chatroom_id),
            headers={
                "Content-Type": "application/json",
                "Content-Disposition": f'attachment; filename="chatroom-{chatroom_id}.json"',
            },
        )

    async def search(self, request: web.Request) -> web.StreamResponse:
        """The user's messages that have certain words."""
        text, page, user_id = _text_of(request), page_of(request), session_of(request).user_id
        before = None if page.cursor is None else _place_of(page.cursor)
        for seconds in (*LOOKS, 0.0):
            async with self._share.of(user_id).connection() as connection:
                found = await search(
                    connection, user_id, text, before, page.limit, lately=LATELY_SECONDS if seconds else 0.0
                )
            if not found.unsettled:
                break
            await self._look(seconds)
        cursor = encode_cursor(_key_of(found.next)) if found.next else None
        return json_reply(SearchPage(messages=found.messages, next_cursor=cursor, complete=found.complete))


def _text_of(request: web.Request) -> str:
    """The `q` of a query; raises a 422 when it cannot be looked for."""
    text = request.query.get("q")
    if text is None:
        raise invalid("q", "is required")
    if not text.strip():
        raise invalid("q", "must not be blank")
    if len(text) > LONGEST_QUERY:
        raise invalid("q", f"must be at most {LONGEST_QUERY} characters")
    if "\0" in text:
        raise invalid("q", "must not contain NUL characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise invalid("q", "is not valid Unicode text") from error
    return text


def _key_of(place: Place) -> str:
    """A place as the key of a cursor: microseconds, prompt and position."""
    return f"{(place.created_at - _EPOCH) // timedelta(microseconds=1)}.{place.prompt_id.hex}.{place.position}"


def _place_of(key: str) -> Place:
    """The place that `_key_of` made a key of."""
    if not (match := _PLACE.fullmatch(key)):
        raise _no_cursor()
    return Place(_EPOCH + timedelta(microseconds=int(match[1])), UUID(hex=match[2]), int(match[3]))


def _no_cursor() -> Fault:
    return invalid("cursor", "must be a next_cursor of this list")
