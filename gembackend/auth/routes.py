"""Signing up, logging in and looking after a password, over HTTP."""

from collections.abc import Sequence
from typing import TypeVar

import msgspec
from aiohttp import web
from msgspec import UNSET

from gembackend.auth.models import (
    ChangePassword,
    CodeSent,
    Done,
    ForgotPassword,
    LoggedIn,
    ResetPassword,
    SendOtp,
    SignedUp,
    SignUp,
    VerifyOtp,
)
from gembackend.auth.room import Auth
from gembackend.auth.rules import Requester, is_common
from gembackend.config import Network
from gembackend.plumbing.faults import CodeName, Fault, invalid
from gembackend.plumbing.ids import new_id
from gembackend.plumbing.postgres import Database
from gembackend.users import store as users
from gembackend.web.address import client_address
from gembackend.web.body import json_reply, read_body
from gembackend.web.routing import Handler, Route
from gembackend.web.session import session_of, session_shown

BODY_BYTES = 4096
GROUP = "Accounts"

Model = TypeVar("Model", bound=msgspec.Struct)


class AuthRoutes:
    """The /v1/auth endpoints. All but logout, which must always work, are rate-limited by address.

    Not by phone: anyone could use up what the owner of a phone has. Guesses at a phone are counted in PostgreSQL.
    """

    def __init__(self, database: Database, auth: Auth, *, trusted_proxies: Sequence[Network] = ()) -> None:
        self._database = database
        self._auth = auth
        self._trusted_proxies = trusted_proxies

    def table(self) -> list[Route]:
        """What is where."""
        limited: tuple[CodeName, ...] = ("rate_limited", "busy")
        asked: tuple[CodeName, ...] = ("rate_limited", "otp_cooldown")
        return [
            _open("signup", self.sign_up, "Make an account", SignUp, SignedUp, 201, ("phone_taken", *limited)),
            _open(
                "send-otp",
                self.send_otp,
                "Ask for a login code",
                SendOtp,
                CodeSent,
                errors=("invalid_credentials", "otp_delivery_failed", "busy", *asked),
            ),
            _open(
                "verify-otp",
                self.verify_otp,
                "Turn a login code into a session",
                VerifyOtp,
                LoggedIn,
                errors=("invalid_otp", "rate_limited"),
            ),
            _open(
                "forgot-password",
                self.forgot_password,
                "Ask for a reset code",
                ForgotPassword,
                CodeSent,
                errors=("otp_delivery_failed", *asked),
            ),
            _open(
                "reset-password",
                self.reset_password,
                "Turn a reset code into a new password",
                ResetPassword,
                Done,
                errors=("invalid_otp", *limited),
            ),
            Route(
                "POST",
                "/v1/auth/change-password",
                self.change_password,
                "Replace the password",
                ChangePassword,
                LoggedIn,
                errors=("invalid_credentials", *limited),
                group=GROUP,
            ),
            Route("POST", "/v1/auth/logout", self.log_out, "End every session of the user", success=204, group=GROUP),
        ]

    async def sign_up(self, request: web.Request) -> web.StreamResponse:
        """Make an account, or make an unverified one anew."""
        body, _ = await self._read(request, SignUp)
        _refuse_common("password", body.password)
        hashed = await self._auth.passwords.hash(body.password)
        known_as = self._auth.phones.names(body.phone)
        async with self._database.transaction() as connection:
            user = await users.sign_up(connection, new_id(), body.phone, hashed, body.name, known_as)
        if user is None:
            raise Fault("phone_taken", "This phone has an account already; log in, or reset the password.")
        return json_reply(SignedUp(user=user, message="The account is made; log in to verify the phone."), status=201)

    async def send_otp(self, request: web.Request) -> web.StreamResponse:
        """Check the password and send a login code."""
        body, requester = await self._read(request, SendOtp)
        account = await self._auth.credentials.check(body.phone, body.password, requester)
        code = await self._auth.challenges.for_login(account, requester)
        return self._code_sent("A login code has been sent to the phone.", code)

    async def verify_otp(self, request: web.Request) -> web.StreamResponse:
        """Turn a login code into a session."""
        body, requester = await self._read(request, VerifyOtp)
        redeemed = await self._auth.challenges.log_in(body.phone, body.otp, requester)
        return self._logged_in("Logged in.", self._auth.tokens.issue(redeemed.user_id, redeemed.token_version))

    async def forgot_password(self, request: web.Request) -> web.StreamResponse:
        """Send a reset code, or look as if."""
        body, requester = await self._read(request, ForgotPassword)
        code = await self._auth.challenges.for_reset(body.phone, requester)
        return self._code_sent("If the phone has an account, a reset code has been sent to it.", code)

    async def reset_password(self, request: web.Request) -> web.StreamResponse:
        """Turn a reset code into a new password; ends every session and begins none."""
        body, requester = await self._read(request, ResetPassword)
        _refuse_common("new_password", body.new_password)
        hashed = await self._auth.passwords.hash(body.new_password)
        redeemed = await self._auth.challenges.reset(body.phone, body.otp, requester, hashed)
        self._auth.versions.changed(redeemed.user_id, redeemed.token_version)
        return json_reply(Done(message="The password is changed and every session has ended; log in with the new one."))

    async def change_password(self, request: web.Request) -> web.StreamResponse:
        """Replace the password, end every session, and begin a new one for whoever asked."""
        body, _ = await self._read(request, ChangePassword)
        _refuse_common("new_password", body.new_password)
        session = session_of(request)
        account = await self._auth.credentials.confirm(session.user_id, session.session_id, body.old_password)
        hashed = await self._auth.passwords.hash(body.new_password)
        async with self._database.connection() as connection:
            version = await users.change_password(connection, account, hashed)
        if version is None:
            raise Fault("invalid_credentials", "The password has just been changed.")
        self._auth.versions.changed(account.user_id, version)
        token = self._auth.tokens.issue(account.user_id, version)
        return self._logged_in("The password is changed and every earlier session has ended.", token)

    async def log_out(self, request: web.Request) -> web.StreamResponse:
        """End every session of the user."""
        user_id = session_of(request).user_id
        async with self._database.connection() as connection:
            version = await users.end_sessions(connection, user_id)
        self._auth.versions.changed(user_id, version)
        return web.Response(status=204)

    async def _read(self, request: web.Request, model: type[Model]) -> tuple[Model, Requester]:
        """The body and who sends it, once the limit of its address, or that of whoever is logged in, lets it pass."""
        requester = await self._admitted(request)
        return await read_body(request, model, limit=BODY_BYTES), requester

    async def _admitted(self, request: web.Request) -> Requester:
        """Who asks. Others at the same address may have used up its limit: a live session then has that of its user."""
        place = self._auth.codes.place(client_address(request, self._trusted_proxies))
        refusal: Fault | None = None
        try:
            await self._auth.limits.admit("address", place)
        except Fault as fault:
            refusal = fault
        session = await session_shown(request, self._auth.sessions.authenticate)
        if refusal is not None:
            if session is None:
                raise refusal
            await self._auth.limits.admit("session", session.user_id.bytes)
        return Requester(place, session.user_id if session else None)

    def _code_sent(self, message: str, code: str | None) -> web.Response:
        expires_in = self._auth.challenges.ttl_seconds
        return json_reply(CodeSent(message=message, expires_in=expires_in, otp=UNSET if code is None else code))

    def _logged_in(self, message: str, token: str) -> web.Response:
        expires_in = self._auth.tokens.ttl_seconds
        return json_reply(LoggedIn(message=message, token=token, expires_in=expires_in))


def _open(
    name: str,
    handler: Handler,
    summary: str,
    body: type[msgspec.Struct],
    reply: type[msgspec.Struct],
    success: int = 200,
    errors: tuple[CodeName, ...] = (),
) -> Route:
    """A route for people who are not logged in."""
    path = f"/v1/auth/{name}"
    return Route("POST", path, handler, summary, body, reply, success, session=False, errors=errors, group=GROUP)


def _refuse_common(field: str, password: str) -> None:
    if is_common(password):
        raise invalid(field, "is one of the commonest passwords, which everybody tries first")
