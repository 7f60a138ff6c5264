"""The user's own page over HTTP."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from aiohttp import web

from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database
from gembackend.plumbing.share import Share
from gembackend.quota.phones import Phones
from gembackend.quota.rules import Dropped
from gembackend.quota.store import usage
from gembackend.users import store
from gembackend.users.cache import TokenVersions
from gembackend.users.models import Farewell, Me, QuotaUsage, User, UserChanges
from gembackend.users.store import Account
from gembackend.web.body import json_reply, read_body
from gembackend.web.routing import Route
from gembackend.web.session import session_of

BODY_BYTES = 4096
GROUP = "User"
DELETION_SECONDS = 10.0
"""How long a deletion waits for its turn behind others, which may be large."""

Confirm = Callable[[UUID, str, str], Awaitable[Account]]
"""Checks the password that a user's session gives again; raises Fault("invalid_credentials")."""


class UserRoutes:
    """The /v1/user/me endpoints. `deletions` is the part of the pool that they may take; `dropped` is the engine's."""

    def __init__(
        self,
        database: Database,
        versions: TokenVersions,
        confirm: Confirm,
        *,
        daily_prompts: int,
        phones: Phones,
        deletions: Share,
        dropped: Dropped,
    ) -> None:
        self._database = database
        self._versions = versions
        self._confirm = confirm
        self._daily_prompts = daily_prompts
        self._phones = phones
        self._deletions = deletions
        self._dropped = dropped

    def table(self) -> list[Route]:
        """What is where."""
        me = "/v1/user/me"
        return [
            Route("GET", me, self.show, "The user and today's usage", reply=Me, group=GROUP),
            Route("PATCH", me, self.rename, "Change the user's name", UserChanges, User, group=GROUP),
            Route(
                "DELETE",
                me,
                self.delete,
                "Delete the account and all that is in it",
                Farewell,
                success=204,
                errors=("invalid_credentials", "busy"),
                group=GROUP,
                description=(
                    "Rooms, messages and sessions go, and prompts that still run are closed. What was used of today's "
                    "quota stays used: a new account of the same phone starts with it."
                ),
            ),
        ]

    async def show(self, request: web.Request) -> web.StreamResponse:
        """The user, the tier from the database's truth, and today's usage."""
        user_id = session_of(request).user_id
        async with self._database.connection() as connection:
            user = _present(await store.get(connection, user_id))
            used = await usage(connection, user_id)
        limit = None if user.subscription_tier == "Pro" else self._daily_prompts
        return json_reply(
            Me(
                id=user.id,
                phone=user.phone,
                name=user.name,
                subscription_tier=user.subscription_tier,
                created_at=user.created_at,
                usage=QuotaUsage(prompts_today=used.prompts_today, daily_limit=limit, resets_at=used.resets_at),
            )
        )

    async def rename(self, request: web.Request) -> web.StreamResponse:
        """Change the user's name."""
        body = await read_body(request, UserChanges, limit=BODY_BYTES)
        async with self._database.connection() as connection:
            user = await store.rename(connection, session_of(request).user_id, body.name)
        return json_reply(_present(user))

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Delete the account; the password is asked for again, and everything of the user goes with it."""
        body = await read_body(request, Farewell, limit=BODY_BYTES)
        session = session_of(request)
        account = await self._confirm(session.user_id, session.session_id, body.password)
        part = self._deletions.of(account.user_id, wait=DELETION_SECONDS)
        async with part.connection() as connection, connection.transaction():
            left = await store.delete(connection, account, self._phones.name(account.phone))
        if left is None:
            raise Fault("invalid_credentials", "The password has just been changed.")
        self._versions.changed(account.user_id, None)
        self._dropped(left.chatroom_ids, left.prompt_ids)
        return web.Response(status=204)


def _present(user: User | None) -> User:
    """The user of a session; one deleted a moment ago has none."""
    if user is None:
        raise Fault("unauthorized", "This session has ended.")
    return user
