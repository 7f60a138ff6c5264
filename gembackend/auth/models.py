"""What clients send and get when they sign up and log in."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from gembackend.plumbing.models import Body
from gembackend.users.models import AnyPassword, Name, Phone, User

NewPassword = Annotated[
    str, Meta(min_length=8, max_length=128, description="8 to 128 characters, not one of the commonest passwords.")
]
Code = Annotated[str, Meta(pattern=r"^[0-9]{6}$(?!\n)", description="The six digits that were sent to the phone.")]


class SignUp(Body, frozen=True):
    """The body that makes an account."""

    phone: Phone
    password: NewPassword
    name: Name | None = None


class SendOtp(Body, frozen=True):
    """The body that asks for a login code."""

    phone: Phone
    password: AnyPassword


class VerifyOtp(Body, frozen=True):
    """The body that turns a login code into a session."""

    phone: Phone
    otp: Code


class ForgotPassword(Body, frozen=True):
    """The body that asks for a reset code."""

    phone: Phone


class ResetPassword(Body, frozen=True):
    """The body that turns a reset code into a new password."""

    phone: Phone
    otp: Code
    new_password: NewPassword


class ChangePassword(Body, frozen=True):
    """The body that replaces a password."""

    old_password: AnyPassword
    new_password: NewPassword


class SignedUp(Struct, frozen=True, kw_only=True):
    """A new account, whose phone is still to be verified by the first login."""

    user: User
    message: str


class CodeSent(Struct, frozen=True, kw_only=True):
    """A code is on its way, and lives `expires_in` seconds; `otp` shows it only when OTP_DELIVERY is response."""

    message: str
    expires_in: int
    otp: str | UnsetType = UNSET


class LoggedIn(Struct, frozen=True, kw_only=True):
    """A session: send the token as `Authorization: Bearer`, for at most `expires_in` seconds."""

    message: str
    token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105
    expires_in: int


class Done(Struct, frozen=True, kw_only=True):
    """It has been done."""

    message: str
