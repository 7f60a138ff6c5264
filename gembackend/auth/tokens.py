"""Session tokens: JWTs (RFC 7519) signed with HS256, in exactly the one form that this service issues."""

import hmac
import re
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import jwt

from gembackend.plumbing.faults import Fault
from gembackend.plumbing.ids import parse_id

ALGORITHM = "HS256"
PARTY = "gembackend"
"""Who issues the tokens and whom they are for."""
CLOCK_SKEW_SECONDS = 30
"""How far another process's clock may run ahead when it issues a token."""
CACHE_CAPACITY = 20_000

_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_CLAIMS = {"sub": str, "iss": str, "aud": str, "iat": int, "exp": int, "jti": str, "ver": int}


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says: whose it is, which token version it was issued under, and until when it lives."""

    user_id: UUID
    version: int
    expires_at: int
    token_id: str


class Tokens:
    """Issues tokens with the first key and accepts those of any key in the ring.

    Checking a signature costs more than the rest of a request, so verified tokens are remembered, a bounded
    number of them, until they expire.
    """

    def __init__(self, key: str, previous_keys: Sequence[str], ttl_seconds: int) -> None:
        self.ttl_seconds = ttl_seconds
        self._key, self._kid = key, _kid(key)
        self._ring = {_kid(one): one for one in (*previous_keys, key)}
        self._verified: OrderedDict[str, Claims] = OrderedDict()

    def issue(self, user_id: UUID, version: int) -> str:
        """A new token of a user under a token version."""
        now = int(time.time())
        claims = {
            "sub": str(user_id),
            "iss": PARTY,
            "aud": PARTY,
            "iat": now,
            "exp": now + self.ttl_seconds,
            "jti": uuid4().hex,
            "ver": version,
        }
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": self._kid})

    def verify(self, token: str) -> Claims:
        """The claims of a token that is ours, unchanged and alive; raises Fault("unauthorized")."""
        claims = self._verified.get(token)
        if claims is None:
            claims = self._decode(token)
            self._verified[token] = claims
            if len(self._verified) > CACHE_CAPACITY:
                self._verified.popitem(last=False)
        elif claims.expires_at <= time.time():
            del self._verified[token]
            raise _refusal()
        return claims

    def _decode(self, token: str) -> Claims:
        if not _SHAPE.fullmatch(token):
            raise _refusal()
        try:
            header = jwt.get_unverified_header(token)
            claims = jwt.decode(
                token,
                self._signed_with(header),
                algorithms=[ALGORITHM],
                audience=PARTY,
                issuer=PARTY,
                leeway=CLOCK_SKEW_SECONDS,
                options={"require": list(_CLAIMS)},
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise _refusal() from error
        return _checked(claims)

    def _signed_with(self, header: dict[str, Any]) -> str:
        kid = header.get("kid")
        key = self._ring.get(kid) if isinstance(kid, str) else None
        if key is None or header != {"alg": ALGORITHM, "typ": "JWT", "kid": kid}:
            raise _refusal()
        return key


def _kid(key: str) -> str:
    """The name of a key: says which it is and nothing about it."""
    return hmac.digest(key.encode(), b"gembackend key id", "sha256").hex()[:16]


def _checked(claims: dict[str, Any]) -> Claims:
    if claims.keys() != _CLAIMS.keys() or any(type(claims[name]) is not kind for name, kind in _CLAIMS.items()):
        raise _refusal()
    user_id = parse_id(claims["sub"])
    sane = all(0 <= claims[name] < 2**53 for name, kind in _CLAIMS.items() if kind is int)
    if user_id is None or not claims["jti"] or not sane or claims["exp"] <= time.time():
        raise _refusal()
    return Claims(user_id, claims["ver"], claims["exp"], claims["jti"])


def _refusal() -> Fault:
    return Fault("unauthorized", "The token is not valid, or not any more.")
