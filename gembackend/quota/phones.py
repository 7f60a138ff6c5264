"""Names for phones that have no account any more: only who has the key can tell whose they are."""

import hmac
from collections.abc import Sequence

_LABEL = b"gembackend quota of phones"


class Phones:
    """Names phones by HMACs under keys derived from the signing key of the tokens and from those before it.

    What was kept under a key that is not accepted any more is not found again.
    """

    def __init__(self, secret: str, previous: Sequence[str] = ()) -> None:
        self._keys = [hmac.digest(key.encode(), _LABEL, "sha256") for key in (secret, *previous)]

    def name(self, phone: str) -> bytes:
        """The name under which to keep something of a phone."""
        return self.names(phone)[0]

    def names(self, phone: str) -> list[bytes]:
        """Every name under which something of a phone may be kept, the newest first."""
        return [hmac.digest(key, phone.encode(), "sha256") for key in self._keys]
