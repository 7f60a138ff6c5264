"""Chatrooms over HTTP."""

from aiohttp import web

from gembackend.chatrooms import store
from gembackend.chatrooms.models import Chatroom, ChatroomChanges, ChatroomDetail, ChatroomPage, NewChatroom
from gembackend.plumbing.faults import Fault, invalid, not_found
from gembackend.plumbing.ids import new_id, parse_id
from gembackend.plumbing.postgres import Database
from gembackend.plumbing.share import Share
from gembackend.quota.rules import Dropped
from gembackend.web.body import json_reply, read_body
from gembackend.web.paging import PAGING, encode_cursor, page_of
from gembackend.web.params import path_id
from gembackend.web.routing import Route
from gembackend.web.session import session_of

GROUP = "Chatrooms"
DELETION_SECONDS = 10.0
"""How long a deletion waits for its turn behind others, which may be large."""


class ChatroomRoutes:
    """The chatroom endpoints. `deletions` is the part of the pool that they may take; `dropped` is the engine's."""

    def __init__(self, database: Database, deletions: Share, dropped: Dropped) -> None:
        self._database = database
        self._deletions = deletions
        self._dropped = dropped

    def table(self) -> list[Route]:
        """What is where."""
        room = "/v1/chatroom/{chatroom_id}"
        return [
            Route(
                "POST",
                "/v1/chatroom",
                self.create,
                "Make a chatroom",
                NewChatroom,
                Chatroom,
                201,
                headers=("Location",),
                group=GROUP,
            ),
            Route(
                "GET",
                "/v1/chatroom",
                self.page,
                "List chatrooms, newest first",
                reply=ChatroomPage,
                parameters=PAGING,
                group=GROUP,
            ),
            Route("GET", room, self.detail, "A chatroom and its counts", reply=ChatroomDetail, group=GROUP),
            Route("PATCH", room, self.rename, "Rename a chatroom", ChatroomChanges, Chatroom, group=GROUP),
            Route(
                "DELETE",
                room,
                self.delete,
                "Delete a chatroom and what is in it",
                success=204,
                group=GROUP,
                description="What still runs there is closed; prompts that had not begun are not counted.",
            ),
        ]

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Make a chatroom."""
        body = await read_body(request, NewChatroom)
        async with self._database.connection() as connection:
            room = await store.create(connection, session_of(request).user_id, new_id(), body.name)
        if room is None:
            raise Fault("unauthorized", "This session has ended.")
        return json_reply(room, status=201, headers={"Location": f"/v1/chatroom/{room.id}"})

    async def page(self, request: web.Request) -> web.StreamResponse:
        """List the user's chatrooms, newest first."""
        page = page_of(request)
        before = parse_id(page.cursor) if page.cursor else None
        if page.cursor and before is None:
            raise invalid("cursor", "must be a next_cursor of this list")
        async with self._database.connection() as connection:
            rooms = await store.page(connection, session_of(request).user_id, before, page.limit + 1)
        more = len(rooms) > page.limit
        rooms = rooms[: page.limit]
        return json_reply(ChatroomPage(chatrooms=rooms, next_cursor=encode_cursor(str(rooms[-1].id)) if more else None))

    async def detail(self, request: web.Request) -> web.StreamResponse:
        """One chatroom with its counts."""
        chatroom_id = path_id(request, "chatroom_id", "chatroom")
        async with self._database.connection() as connection:
            room = await store.detail(connection, session_of(request).user_id, chatroom_id)
        if room is None:
            raise not_found("chatroom")
        return json_reply(room)

    async def rename(self, request: web.Request) -> web.StreamResponse:
        """Rename a chatroom."""
        chatroom_id = path_id(request, "chatroom_id", "chatroom")
        body = await read_body(request, ChatroomChanges)
        async with self._database.connection() as connection:
            room = await store.rename(connection, session_of(request).user_id, chatroom_id, body.name)
        if room is None:
            raise not_found("chatroom")
        return json_reply(room)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Delete a chatroom; prompts of it that have not finished are dropped."""
        chatroom_id = path_id(request, "chatroom_id", "chatroom")
        user_id = session_of(request).user_id
        async with (
            self._deletions.of(user_id, wait=DELETION_SECONDS).connection() as connection,
            connection.transaction(),
        ):
            dropped = await store.delete(connection, user_id, chatroom_id)
        if dropped is None:
            raise not_found("chatroom")
        self._dropped([chatroom_id], dropped)
        return web.Response(status=204)
