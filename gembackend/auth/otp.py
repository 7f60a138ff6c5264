"""One-time codes: made by a CSPRNG, kept only as HMACs under a key that the database does not have."""

import hashlib
import hmac
import secrets

from gembackend.auth.rules import Purpose


class Codes:
    """Makes codes and their digests; the keys are derived from the signing key of the tokens.

    Changing that key ends the codes that are on their way, which live for minutes, and forgets failures and the places
    that users are known from, until they log in there again.
    """

    def __init__(self, secret: str) -> None:
        self._code_key = _derived(secret, b"gembackend one-time codes")
        self._phone_key = _derived(secret, b"gembackend phones")
        self._session_key = _derived(secret, b"gembackend sessions")
        self._place_key = _derived(secret, b"gembackend places")

    def make(self) -> str:
        """Six random digits."""
        return f"{secrets.randbelow(1_000_000):06}"

    def digest(self, purpose: Purpose, phone: str, code: str) -> bytes:
        """What the database keeps of a code: it fits this purpose and this phone only."""
        return hmac.digest(self._code_key, f"{purpose.value}|{phone}|{code}".encode(), "sha256")

    def phone_key(self, phone: str) -> bytes:
        """The name under which failures and codes of a phone are kept."""
        return hmac.digest(self._phone_key, phone.encode(), "sha256")

    def session_key(self, session_id: str) -> bytes:
        """The name under which failures of a session are kept."""
        return hmac.digest(self._session_key, session_id.encode(), "sha256")

    def place(self, address: str) -> bytes:
        """The name of a client's address, wherever it is kept."""
        return hmac.digest(self._place_key, address.encode(), "sha256")


def _derived(secret: str, label: bytes) -> bytes:
    return hmac.digest(secret.encode(), label, hashlib.sha256)
