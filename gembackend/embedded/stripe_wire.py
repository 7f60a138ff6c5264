"""What Stripe's API looks like on the wire: nested forms in, JSON and typed errors out, signed webhooks."""

import asyncio
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one call is treated: at first `latency` seconds pass and `hold` is waited for, then it is carried out.

    With `status` it fails with that, and is not carried out unless it has an `effect` all the same. Such a failure is
    `kept` under the call's idempotency key, unless that says otherwise, when it is a 5xx. Before the answer goes out
    `delay` seconds pass and `withheld` is waited for, so that it is as old; with `cut` no answer goes out at all,
    although the call has been carried out.
    """

    latency: float = 0.0
    hold: asyncio.Event | None = None
    status: int | None = None
    effect: bool = False
    kept: bool | None = None
    delay: float = 0.0
    withheld: asyncio.Event | None = None
    cut: bool = False

    @property
    def keeps(self) -> bool:
        """Whether the failure is kept."""
        return self.kept if self.kept is not None else self.status is not None and self.status >= 500


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the API as it arrived."""

    method: str
    path: str
    params: Object
    idempotency_key: str | None
    api_version: str | None


class ApiError(Exception):
    """An error as Stripe tells it. https://docs.stripe.com/api/errors"""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        told = {"type": kind, "code": code, "message": message, "param": param}
        self.body = {"error": {name: value for name, value in told.items() if value is not None}}


def missing(what: str, object_id: str, *, param: str = "id") -> ApiError:
    """There is no such object: 404 when it is what was asked for, 400 when a parameter names it."""
    status = 404 if param == "id" else 400
    return ApiError(f"No such {what}: '{object_id}'", status=status, code="resource_missing", param=param)


def injected(status: int, call: Call) -> ApiError:
    """The error of a call that is told to fail."""
    if status == 401:
        return ApiError("Invalid API Key provided.", status=401)
    if status == 403:
        needed = f"rak_{call.path.split('/')[2].removesuffix('s')}_{'read' if call.method == 'GET' else 'write'}"
        return ApiError(
            "The provided key 'rk_test_standin' does not have the required permissions for this endpoint. "
            f"Having the '{needed}' permission would allow this request to continue.",
            status=403,
        )
    if status == 429:
        return ApiError("Too many requests.", status=429, code="rate_limit")
    kind = "api_error" if status >= 500 else "invalid_request_error"
    return ApiError("The stand-in was told to fail.", status=status, kind=kind)


def parse_form(pairs: Iterable[tuple[str, str]]) -> Object:
    """The nested values of a form or a query: `a[b][0]=c` is `{"a": {"b": ["c"]}}`."""
    root: Object = {}
    for name, value in pairs:
        *path, last = name.replace("]", "").split("[")
        place = root
        for part in path:
            place = place.setdefault(part, {})
        place[last or str(len(place))] = value
    return {name: _lists(value) for name, value in root.items()}


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if all(key.isdigit() for key in value):
        return [_lists(value[key]) for key in sorted(value, key=int)]
    return {key: _lists(each) for key, each in value.items()}


def page(url: str, found: list[Object], params: Object) -> Object:
    """One page of a list, newest first. https://docs.stripe.com/api/pagination"""
    if after := params.get("starting_after"):
        ids = [each["id"] for each in found]
        found = found[ids.index(after) + 1 :] if after in ids else []
    limit = int(params.get("limit", 10))
    return {"object": "list", "url": url, "has_more": len(found) > limit, "data": found[:limit]}


def made_in(found: list[Object], params: Object) -> list[Object]:
    """What was made in the time that `created` says, in seconds since 1970."""
    bounds = params.get("created", {})
    earliest, latest = int(bounds.get("gte", 0)), int(bounds.get("lte", 2**62))
    return [each for each in found if earliest <= each["created"] <= latest]


def new_id(prefix: str) -> str:
    """An id as Stripe makes them."""
    return f"{prefix}_{secrets.token_hex(12)}"


def signature(raw: bytes, secret: str, now: float) -> str:
    """The `Stripe-Signature` of a webhook's body. https://docs.stripe.com/webhooks#verify-manually"""
    timestamp = str(int(now))
    digest = hmac.digest(secret.encode(), timestamp.encode() + b"." + raw, "sha256").hex()
    return f"t={timestamp},v1={digest}"
