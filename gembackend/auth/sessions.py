"""From a bearer token to a live session."""

from dataclasses import dataclass
from uuid import UUID

from gembackend.auth.tokens import Tokens
from gembackend.plumbing.faults import Fault
from gembackend.users.cache import TokenVersions


@dataclass(frozen=True, slots=True)
class LiveSession:
    """A session that nothing has ended, as of less than a second ago."""

    user_id: UUID
    session_id: str


class Sessions:
    """A session lives while its token is valid and its version is the user's own."""

    def __init__(self, tokens: Tokens, versions: TokenVersions) -> None:
        self._tokens = tokens
        self._versions = versions

    async def authenticate(self, token: str) -> LiveSession:
        """The session of a token; raises Fault("unauthorized"), or Fault("database_unavailable") if none can tell."""
        claims = self._tokens.verify(token)
        if await self._versions.current(claims.user_id, at_least=claims.version) != claims.version:
            raise Fault("unauthorized", "This session has ended.")
        return LiveSession(claims.user_id, claims.token_id)
