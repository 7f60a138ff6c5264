"""What can go wrong, as values: a stable code, a public sentence, a private cause.

A `Fault` knows no HTTP; `web.problems` renders it. The registry below is the one list of
codes, so that the API description and the code cannot disagree.
"""

from dataclasses import dataclass
from enum import Enum


class Family(Enum):
    """The kind of a fault, which decides its HTTP status."""

    MALFORMED = 400
    UNAUTHORIZED = 401
    FORBIDDEN = 403
    NOT_FOUND = 404
    METHOD = 405
    CONFLICT = 409
    TOO_LARGE = 413
    MEDIA_TYPE = 415
    INVALID = 422
    LIMITED = 429
    INTERNAL = 500
    UNAVAILABLE = 503


@dataclass(frozen=True, slots=True)
class Code:
    """One entry of the registry: a stable snake_case name, its family and its title."""

    name: str
    family: Family
    title: str


@dataclass(frozen=True, slots=True)
class FieldError:
    """One invalid field of a request: where it is, and what is wrong with it."""

    field: str
    message: str


def _registry(*codes: Code) -> dict[str, Code]:
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
    `retry_after` is whole seconds and becomes the `Retry-After` header.
    """

    def __init__(
        self,
        code: str,
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
    """A 422 about one field."""
    return Fault("validation_failed", f"{field}: {message}", errors=(FieldError(field, message),))
