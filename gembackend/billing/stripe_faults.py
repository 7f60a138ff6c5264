"""What an exception out of stripe-python means.

Stripe keeps the first answer to an idempotency key for a day, failures too, unless the call never began to be carried
out; where that cannot be told, a new key is the safe choice. https://docs.stripe.com/error-low-level#idempotency
"""

import re

import aiohttp
import stripe

from gembackend.billing.faults import CustomerMissing, StripeFault
from gembackend.plumbing import logs

log = logs.logger(__name__)

CONFLICT = 409
"""The status of a call whose idempotency key is that of a call which is still being carried out."""

_CODE = re.compile(r"[a-z_]{1,64}")
_PERMISSION = re.compile(r"\brak_[a-z0-9_]{1,64}\b")


def fault_of(error: Exception) -> StripeFault:
    """What an exception out of the SDK, its transport or our reading of an answer means."""
    match error:
        case TimeoutError():
            return StripeFault("timeout")
        case stripe.InvalidRequestError():
            if error.code == "resource_missing" and error.param == "customer":
                return CustomerMissing()
            known = isinstance(error.code, str) and _CODE.fullmatch(error.code)
            return StripeFault(str(error.code) if known else "invalid_request", lasting=True, kept=True)
        case stripe.AuthenticationError():
            # The operator's to mend, like the next: nothing is wrong with what was asked for.
            return StripeFault("key_refused", kept=True)
        case stripe.PermissionError():
            named = _PERMISSION.search(str(error.user_message))
            return StripeFault("permission_missing", kept=True, permission=named[0] if named else None)
        case stripe.RateLimitError():
            return StripeFault("rate_limited")
        case stripe.APIConnectionError() | aiohttp.ClientError() | OSError():
            return StripeFault("unreachable")
        case stripe.IdempotencyError():
            return StripeFault("idempotency_key_reused", kept=True)
        case stripe.StripeError():
            return StripeFault("server_error", kept=error.http_status != CONFLICT)
        case _:
            log.error("stripe_answer_unexpected", exc_info=error)
            return StripeFault("unexpected_answer", lasting=True, kept=True)
