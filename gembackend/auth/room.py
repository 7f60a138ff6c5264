"""The parts of this room, wired together."""

from redis.asyncio import Redis

from gembackend.auth.challenges import Challenges, CodePolicy
from gembackend.auth.credentials import Credentials
from gembackend.auth.delivery import Delivery, InReplies, Webhook
from gembackend.auth.limits import RateLimits
from gembackend.auth.otp import Codes
from gembackend.auth.passwords import Cost, Passwords
from gembackend.auth.rules import common_passwords
from gembackend.auth.sessions import Sessions
from gembackend.auth.sweeper import AuthSweeper
from gembackend.auth.tokens import Tokens
from gembackend.config import Settings
from gembackend.plumbing.postgres import Database
from gembackend.quota.phones import Phones
from gembackend.users.cache import TokenVersions


class Auth:
    """Everything about accounts and sessions but the HTTP; `start` before use, `stop` at the end.

    `sweeper` is an actor and wants a supervisor.
    """

    def __init__(self, settings: Settings, database: Database, redis: Redis, *, cost: Cost | None = None) -> None:
        assert settings.jwt_secret_key
        policy = CodePolicy(settings.otp_ttl_seconds, settings.otp_resend_seconds, settings.otp_max_attempts)
        self.codes = Codes(settings.jwt_secret_key)
        self.phones = Phones(settings.jwt_secret_key, settings.jwt_previous_keys)
        self.passwords = Passwords(cost or Cost())
        self.credentials = Credentials(database, self.passwords, self.codes)
        self.delivery = _delivery(settings)
        self.challenges = Challenges(database, self.codes, self.delivery, policy)
        self.tokens = Tokens(settings.jwt_secret_key, settings.jwt_previous_keys, settings.jwt_ttl_seconds)
        self.versions = TokenVersions(database)
        self.sessions = Sessions(self.tokens, self.versions)
        self.limits = RateLimits(redis, settings.auth_rate_limit)
        self.sweeper = AuthSweeper(database)

    async def start(self) -> None:
        """Read the common passwords, make the hash of nobody's password, open the way for codes."""
        common_passwords()
        await self.passwords.start()
        await self.delivery.start()

    async def stop(self, grace: float) -> None:
        """Let codes under way go out, within `grace` seconds, and hashes end; harmless to repeat."""
        await self.delivery.stop(grace)
        await self.versions.close()
        self.passwords.stop()


def _delivery(settings: Settings) -> Delivery:
    if settings.otp_delivery == "response":
        return InReplies()
    assert settings.otp_webhook_url and settings.otp_webhook_secret
    return Webhook(settings.otp_webhook_url, settings.otp_webhook_secret)
