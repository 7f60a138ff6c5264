"""What a call to Stripe can fail with, as faults that clients may be told about."""

from gembackend.plumbing.faults import Fault

RETRY_AFTER_SECONDS = 5


class StripeFault(Fault):
    """A call to Stripe that came to nothing. `reason` is a word for logs and operators, never Stripe's own text.

    `lasting` says that the same call would fail again: Stripe has answered, and the answer is no. `kept` says that
    Stripe may give this very answer again, for a day, to whoever asks under the same idempotency key. `permission` is
    what our key lacks, in Stripe's words, if Stripe has named it.
    """

    def __init__(
        self, reason: str, *, lasting: bool = False, kept: bool = False, permission: str | None = None
    ) -> None:
        super().__init__(
            "payments_unavailable",
            "Payments cannot be handled at the moment; try again shortly.",
            retry_after=RETRY_AFTER_SECONDS,
        )
        self.reason = reason
        self.lasting = lasting
        self.kept = kept
        self.permission = permission

    @property
    def forbidden(self) -> bool:
        """Whether Stripe refuses this to our key: the operator's to mend."""
        return self.reason in ("key_refused", "permission_missing")

    @property
    def why(self) -> str:
        """The reason, with the permission that is missing."""
        return f"{self.reason} {self.permission}" if self.permission else self.reason


class CustomerMissing(StripeFault):
    """Stripe has no such customer; `deleted` when it once had, else the key belongs to another account."""

    def __init__(self, *, deleted: bool = False) -> None:
        super().__init__("customer_missing", lasting=True, kept=True)
        self.deleted = deleted


def not_set_up() -> Fault:
    """The answer of a service that has no Stripe key."""
    return Fault(
        "payments_unavailable",
        "This service takes no payments: its operator has not set STRIPE_SECRET_KEY.",
        retry_after=3600,
    )
