"""Idempotency keys as Stripe keeps them: the first answer is given again for a day, be it a failure."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gembackend.embedded.stripe_wire import ApiError, Call, Object

KEPT_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class _Kept:
    asked: Object
    status: int
    body: Object
    at: float


class Keys:
    """The answers kept by key. https://docs.stripe.com/api/idempotent_requests"""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._in_use: set[str] = set()

    @contextmanager
    def in_use(self, call: Call) -> Iterator[None]:
        """While a call is being carried out; another one under its key is a conflict, and is not carried out."""
        key = _key(call)
        if key is None:
            yield
            return
        if key in self._in_use:
            raise ApiError(
                "There is currently another in-progress request using this Idempotent Key.",
                status=409,
                kind="idempotency_error",
                code="idempotency_key_in_use",
            )
        self._in_use.add(key)
        try:
            yield
        finally:
            self._in_use.discard(key)

    def answer(self, call: Call) -> tuple[int, Object] | None:
        """What was answered to this key; None when nothing is kept."""
        kept = self._kept.get(_key(call) or "")
        if kept is None or kept.at < time.monotonic() - KEPT_SECONDS:
            return None
        if kept.asked != _asked(call):
            raise ApiError(
                "Keys for idempotent requests can only be used with the same parameters they were first used with.",
                kind="idempotency_error",
            )
        return kept.status, kept.body

    def keep(self, call: Call, status: int, body: Object) -> None:
        """Keep the answer to a call that has begun to be carried out."""
        if key := _key(call):
            self._kept[key] = _Kept(_asked(call), status, body, time.monotonic())

    def forget(self) -> None:
        """Forget every answer, as after a day."""
        self._kept.clear()


def _key(call: Call) -> str | None:
    return call.idempotency_key if call.method == "POST" else None


def _asked(call: Call) -> Object:
    return {"path": call.path, "params": call.params}
