"""One-time codes from the asking to the using up."""

from dataclasses import dataclass

from gembackend.auth import store
from gembackend.auth.delivery import Delivery, Message, expiry
from gembackend.auth.otp import Codes
from gembackend.auth.rules import Purpose, Requester
from gembackend.auth.store import Redeemed
from gembackend.plumbing import metrics
from gembackend.plumbing.faults import Fault
from gembackend.plumbing.postgres import Database
from gembackend.users.store import Account


@dataclass(frozen=True, slots=True)
class CodePolicy:
    """How long a code lives, how soon after a living one another may be asked for, how many tries it takes."""

    ttl_seconds: int
    resend_seconds: int
    max_attempts: int


class Challenges:
    """Asks a phone for a code and checks the answer.

    A reset for a phone nobody has goes the same way as any other, on to a code that fits nothing. For a login the
    password has been checked, so there is nothing to hide: the client waits until the code has been handed over and
    hears when it could not be. For a reset the client is answered first and the code handed over afterwards, because
    the time it takes, or its failure, would tell that there is such a phone.
    """

    def __init__(self, database: Database, codes: Codes, delivery: Delivery, policy: CodePolicy) -> None:
        self._database = database
        self._codes = codes
        self._delivery = delivery
        self._policy = policy

    @property
    def ttl_seconds(self) -> int:
        """How long a code lives."""
        return self._policy.ttl_seconds

    async def for_login(self, account: Account, requester: Requester) -> str | None:
        """Send a login code; answers with it if it is to be shown. Raises otp_cooldown or otp_delivery_failed."""
        message, _ = await self._issue(Purpose.LOGIN, account.phone, account.password_hash, requester)
        try:
            await self._delivery.deliver(message)
        except Fault:
            async with self._database.connection() as connection:
                await store.withdraw_code(connection, *self._keys(message))
            raise
        return message.code if self._delivery.shows_codes else None

    async def for_reset(self, phone: str, requester: Requester) -> str | None:
        """Send a reset code, if the phone is a user's; answers with it if codes are shown.

        Raises otp_cooldown; and otp_delivery_failed, for any phone and before anything else, when too many codes wait
        for the gateway.
        """
        with self._delivery.turn():
            message, to_someone = await self._issue(Purpose.RESET, phone, None, requester)
            if to_someone:
                self._delivery.deliver_later(message)
        return message.code if self._delivery.shows_codes else None

    async def log_in(self, phone: str, code: str, requester: Requester) -> Redeemed:
        """Use up a login code; raises Fault("invalid_otp")."""
        return await self._redeem(Purpose.LOGIN, phone, code, requester, None)

    async def reset(self, phone: str, code: str, requester: Requester, password_hash: str) -> Redeemed:
        """Use up a reset code and store the new password; raises Fault("invalid_otp")."""
        return await self._redeem(Purpose.RESET, phone, code, requester, password_hash)

    async def _redeem(
        self, purpose: Purpose, phone: str, code: str, requester: Requester, password_hash: str | None
    ) -> Redeemed:
        async with self._database.connection() as connection:
            redeemed = await store.redeem_code(
                connection,
                purpose,
                phone,
                self._codes.phone_key(phone),
                self._codes.digest(purpose, phone, code),
                requester,
                max_attempts=self._policy.max_attempts,
                new_password_hash=password_hash,
            )
        if isinstance(redeemed, Redeemed):
            metrics.CODES.labels(purpose.value, "redeemed").inc()
            return redeemed
        metrics.CODES.labels(purpose.value, redeemed).inc()
        raise Fault("invalid_otp", "The code is wrong, used up or too old.")

    async def _issue(
        self, purpose: Purpose, phone: str, password_hash: str | None, requester: Requester
    ) -> tuple[Message, bool]:
        message = Message(phone, self._codes.make(), purpose, expiry(self._policy.ttl_seconds))
        async with self._database.connection() as connection:
            challenge = await store.issue_code(
                connection,
                purpose,
                phone,
                *self._keys(message),
                requester,
                password_hash=password_hash,
                ttl=self._policy.ttl_seconds,
                cooldown=self._policy.resend_seconds,
                max_attempts=self._policy.max_attempts,
            )
        if not challenge.issued:
            metrics.CODES.labels(purpose.value, "cooldown").inc()
            raise Fault(
                "otp_cooldown",
                "A code was sent a moment ago and is still good; wait before asking for another.",
                retry_after=challenge.retry_after,
            )
        metrics.CODES.labels(purpose.value, "issued").inc()
        return message, challenge.user_id is not None

    def _keys(self, message: Message) -> tuple[bytes, bytes]:
        phone_key = self._codes.phone_key(message.phone)
        return phone_key, self._codes.digest(message.purpose, message.phone, message.code)
