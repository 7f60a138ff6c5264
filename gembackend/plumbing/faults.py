"""What can go wrong, as values: a stable code, a public sentence, a private cause.

The registry below is the one list of codes, so that the API description and the code cannot disagree. Which status and
which headers a family has is `web.problems`' affair.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal


class Family(Enum):
    """The kind of a fault: what whoever asked may make of it."""

    MALFORMED = auto()
    UNAUTHORIZED = auto()
    NOT_FOUND = auto()
    METHOD = auto()
    CONFLICT = auto()
    TOO_LARGE = auto()
    MEDIA_TYPE = auto()
    INVALID = auto()
    LIMITED = auto()
    INTERNAL = auto()
    UNAVAILABLE = auto()


CodeName = Literal[
    "malformed_request",
    "malformed_json",
    "invalid_signature",
    "thin_event",
    "unauthorized",
    "invalid_credentials",
    "invalid_otp",
    "not_found",
    "method_not_allowed",
    "phone_taken",
    "already_subscribed",
    "not_subscribed",
    "prompt_finished",
    "prompt_unfinished",
    "not_latest",
    "payload_too_large",
    "unsupported_media_type",
    "validation_failed",
    "idempotency_key_reused",
    "rate_limited",
    "otp_cooldown",
    "daily_limit_reached",
    "room_busy",
    "too_many_streams",
    "internal_error",
    "backlog_full",
    "database_unavailable",
    "busy",
    "otp_delivery_failed",
    "payments_unavailable",
    "shutting_down",
]
"""The names of the registry below, so that a misspelt one is found by mypy and not by a client."""


@dataclass(frozen=True, slots=True)
class Code:
    """One entry of the registry: a stable snake_case name, its family and its title."""

    name: CodeName
    family: Family
    title: str


@dataclass(frozen=True, slots=True)
class FieldError:
    """One invalid field of a request: where it is, and what is wrong with it."""

    field: str
    message: str


def _registry(*codes: Code) -> dict[CodeName, Code]:
    return {code.name: code for code in codes}


CODES = _registry(
    Code("malformed_request", Family.MALFORMED, "Malformed request"),
    Code("malformed_json", Family.MALFORMED, "Malformed JSON"),
    Code("invalid_signature", Family.MALFORMED, "Invalid signature"),
    Code("thin_event", Family.MALFORMED, "Thin Stripe event"),
    Code("unauthorized", Family.UNAUTHORIZED, "Not logged in"),
    Code("invalid_credentials", Family.UNAUTHORIZED, "Wrong phone or password"),
    Code("invalid_otp", Family.UNAUTHORIZED, "Wrong or expired code"),
    Code("not_found", Family.NOT_FOUND, "Not found"),
    Code("method_not_allowed", Family.METHOD, "Method not allowed"),
    Code("phone_taken", Family.CONFLICT, "Phone already registered"),
    Code("already_subscribed", Family.CONFLICT, "Already subscribed"),
    Code("not_subscribed", Family.CONFLICT, "Not subscribed"),
    Code("prompt_finished", Family.CONFLICT, "Prompt already finished"),
    Code("prompt_unfinished", Family.CONFLICT, "Prompt not finished yet"),
    Code("not_latest", Family.CONFLICT, "Not the latest finished prompt"),
    Code("payload_too_large", Family.TOO_LARGE, "Body too large"),
    Code("unsupported_media_type", Family.MEDIA_TYPE, "Body must be JSON"),
    Code("validation_failed", Family.INVALID, "Invalid request"),
    Code("idempotency_key_reused", Family.INVALID, "Idempotency key used with another request"),
    Code("rate_limited", Family.LIMITED, "Too many requests"),
    Code("otp_cooldown", Family.LIMITED, "Code sent a moment ago"),
    Code("daily_limit_reached", Family.LIMITED, "Daily limit reached"),
    Code("room_busy", Family.LIMITED, "Chatroom busy"),
    Code("too_many_streams", Family.LIMITED, "Too many event streams"),
    Code("internal_error", Family.INTERNAL, "Internal error"),
    Code("backlog_full", Family.UNAVAILABLE, "Too many prompts are waiting"),
    Code("database_unavailable", Family.UNAVAILABLE, "Database unavailable"),
    Code("busy", Family.UNAVAILABLE, "Service busy"),
    Code("otp_delivery_failed", Family.UNAVAILABLE, "Code could not be delivered"),
    Code("payments_unavailable", Family.UNAVAILABLE, "Payments unavailable"),
    Code("shutting_down", Family.UNAVAILABLE, "Shutting down"),
)


class Fault(Exception):
    """A failure that a client may be told about.

    `detail` is public. The cause (`raise Fault(...) from error`) is for the log only.
    `retry_after` is in how many whole seconds it is worth asking again.
    """

    def __init__(
        self,
        code: CodeName,
        detail: str,
        *,
        retry_after: int | None = None,
        errors: tuple[FieldError, ...] = (),
    ) -> None:
        super().__init__(detail)
        self.code = CODES[code]
        self.detail = detail
        self.retry_after = retry_after
        self.errors = errors


def not_found(what: str) -> Fault:
    """The one answer for a thing that does not exist or is someone else's."""
    return Fault("not_found", f"There is no such {what}.")


def invalid(field: str, message: str) -> Fault:
    """The fault of one field that cannot be what it is."""
    return Fault("validation_failed", f"{field}: {message}", errors=(FieldError(field, message),))
