"""How a one-time code reaches its phone: shown in the reply (a mock), or posted to the operator's SMS gateway."""

import asyncio
import hmac
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
import msgspec

from gembackend.auth.rules import Purpose
from gembackend.plumbing import metrics
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.ids import new_id
from gembackend.plumbing.logs import logger

ATTEMPTS = 3
ATTEMPT_SECONDS = 5.0
PATIENCE_SECONDS = 2.5
"""How long a client waits for its code to be handed over, all attempts together."""
PAUSE_SECONDS = 0.2
MAX_UNDER_WAY = 1000
"""So many codes may wait for the gateway behind answered requests."""
RETRY_AFTER_SECONDS = 5

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """A code on its way to a phone."""

    phone: str
    code: str
    purpose: Purpose
    expires_at: datetime


class Delivery(ABC):
    """`shows_codes` tells whether codes belong into replies."""

    shows_codes: bool

    @abstractmethod
    async def start(self) -> None:
        """Make ready."""

    @abstractmethod
    async def stop(self, grace: float) -> None:
        """Deliver what is under way, within `grace` seconds."""

    @abstractmethod
    async def deliver(self, message: Message) -> None:
        """Hand a code over; raises Fault("otp_delivery_failed")."""

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Keep room for one message to deliver later; raises Fault("otp_delivery_failed") when there is none."""
        yield

    @abstractmethod
    def deliver_later(self, message: Message) -> None:
        """Hand a code over after the client has been answered, who so cannot tell whether there was one.

        To be called within a `turn`.
        """


class InReplies(Delivery):
    """The mock: whoever asks for a code gets it. Never for real users, so it says so."""

    shows_codes = True

    async def start(self) -> None:
        """Say so in the metrics."""
        metrics.CODES_IN_RESPONSES.set(1)

    async def stop(self, grace: float) -> None:
        """There is nothing under way."""

    async def deliver(self, message: Message) -> None:
        """The reply does it."""

    def deliver_later(self, message: Message) -> None:
        """The reply does it."""


class Webhook(Delivery):
    """Posts `{phone, code, purpose, expires_at}` as JSON to a URL of the operator.

    `X-Gembackend-Signature` is the hex HMAC-SHA256, under the shared secret, of the `X-Gembackend-Timestamp` header
    (seconds since 1970), a full stop and the body; `Idempotency-Key` is the same in every attempt. Any 2xx means that
    the gateway has taken the code over. Answers of 5xx, 408 and 429, and no answer at all, are tried again.
    """

    shows_codes = False

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._secret = secret.encode()
        self._session: aiohttp.ClientSession | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        self._turns = 0

    async def start(self) -> None:
        """Make the HTTP client."""
        metrics.CODES_IN_RESPONSES.set(0)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ATTEMPT_SECONDS))

    async def stop(self, grace: float) -> None:
        """Deliver what is under way, within `grace` seconds, give the rest up, and close the client."""
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=max(0.0, grace))
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if self._session is not None:
            await self._session.close()

    async def deliver(self, message: Message) -> None:
        """Hand a code over within PATIENCE_SECONDS; raises Fault("otp_delivery_failed")."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                delivered = await self._post(message)
        except TimeoutError:
            delivered = False
        self._account(message, delivered)
        if not delivered:
            raise _undelivered()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Keep room for one reset code; raises Fault("otp_delivery_failed") when MAX_UNDER_WAY are under way."""
        if len(self._under_way) + self._turns >= MAX_UNDER_WAY:
            metrics.CODES.labels(Purpose.RESET.value, "turned_away").inc()
            log.warning("gateway_queue_full", under_way=len(self._under_way))
            raise _undelivered()
        self._turns += 1
        try:
            yield
        finally:
            self._turns -= 1

    def deliver_later(self, message: Message) -> None:
        """Hand a code over in the background; a failure is seen in the log and the metrics only."""
        task = asyncio.create_task(self._deliver_quietly(message), name="otp-delivery")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _deliver_quietly(self, message: Message) -> None:
        delivered = False
        try:
            delivered = await self._post(message)
        finally:
            self._account(message, delivered)

    def _account(self, message: Message, delivered: bool) -> None:
        metrics.CODES.labels(message.purpose.value, "delivered" if delivered else "undelivered").inc()
        if not delivered:
            log.error("code_undelivered", purpose=message.purpose.value)

    async def _post(self, message: Message) -> bool:
        body = msgspec.json.encode(message)
        key = str(new_id())
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(PAUSE_SECONDS * attempt)
            if (verdict := await self._attempt(body, key)) is not None:
                return verdict
        return False

    async def _attempt(self, body: bytes, key: str) -> bool | None:
        """True: taken over; False: refused for good; None: worth another attempt."""
        assert self._session is not None
        timestamp = str(int(time.time()))
        signature = hmac.digest(self._secret, timestamp.encode() + b"." + body, "sha256").hex()
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            "X-Gembackend-Timestamp": timestamp,
            "X-Gembackend-Signature": signature,
        }
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.warning("gateway_unreachable", error=type(error).__name__)
            return None
        if 200 <= status < 300:
            return True
        log.warning("gateway_refused", status=status)
        return None if status >= 500 or status in (408, 429) else False


def _undelivered() -> Fault:
    return Fault(
        "otp_delivery_failed", "The code could not be sent; try again shortly.", retry_after=RETRY_AFTER_SECONDS
    )


def expiry(ttl_seconds: int) -> datetime:
    """When a code made now ends."""
    return datetime.fromtimestamp(int(time.time()) + ttl_seconds, UTC)
