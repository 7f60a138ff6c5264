"""Tokens that are not ours, or not quite."""

import base64
import hmac
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

import jwt
import pytest

from gembackend.auth.tokens import Tokens
from gembackend.plumbing.faults import Fault
from tests.accounts import SECRET, Service, new_phone, settings
from tests.processes import no_later

OTHER = "another key for tests: T7pVb2nXq9LwRf4KzYc8"

Claims = dict[str, Any]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def signed(header: Claims, claims: Claims, key: str = SECRET, digest: str = "sha256") -> str:
    """A token whose signature is right for its key, whatever else is wrong with it."""
    signing = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{signing}.{b64(hmac.digest(key.encode(), signing.encode(), digest))}"


def forgeries(token: str) -> dict[str, str]:
    """Damaged, forged and outlandish relatives of a good token, by what is wrong with them."""
    header, claims = jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})
    head, body, signature = token.split(".")
    now = int(time.time())

    def but(**changed: Any) -> str:
        return signed(header, claims | changed)

    def headed(**changed: Any) -> str:
        return signed(header | changed, claims)

    damaged = {
        "no signature": f"{head}.{body}.",
        "two parts": f"{head}.{body}",
        "four parts": f"{token}.{signature}",
        "empty parts": "..",
        "cut short": token[:-3],
        "one bit changed": f"{head}.{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}",
        "another spelling of the last byte": token[:-1] + chr(ord(token[-1]) + 1),
        "padded": f"{token}=",
        "padded header": f"{head}==.{body}.{signature}",
        "another user's claims": f"{head}.{b64(json.dumps(claims | {'sub': str(uuid4())}).encode())}.{signature}",
        "6 kB of [ as a header": f"{b64(b'[' * 6144)}.{body}.{signature}",
        "6 kB of [ as claims": f"{head}.{b64(b'[' * 6144)}.{signature}",
        "a header that is not JSON": f"{b64(b'nonsense')}.{body}.{signature}",
        "a header that is a list": f"{b64(b'[]')}.{body}.{signature}",
        "a header that is not UTF-8": f"{b64(bytes([0xFF, 0xFE]))}.{body}.{signature}",
        "not base64": f"!!!.{body}.{signature}",
        "4 kB of dots": "." * 4000,
        "a word": "token",
    }
    odd_headers = {
        "none": f"{b64(json.dumps(header | {'alg': 'none'}).encode())}.{body}.",
        "none, with a signature": headed(alg="none"),
        "none, in capitals": headed(alg="NONE"),
        "RS256": headed(alg="RS256"),
        "HS512": signed(header | {"alg": "HS512"}, claims, digest="sha512"),
        "hs256, in small letters": headed(alg="hs256"),
        "alg that is null": headed(alg=None),
        "no alg": signed({"typ": "JWT", "kid": header["kid"]}, claims),
        "another key": signed(header, claims, OTHER),
        "the kid as a key": signed(header, claims, header["kid"]),
        "no key": signed(header, claims, ""),
        "unknown kid": headed(kid="0123456789abcdef"),
        "no kid": signed({"typ": "JWT", "alg": "HS256"}, claims),
        "kid that is a number": headed(kid=7),
        "kid that is a list": headed(kid=["a"]),
        "kid that is a path": headed(kid="../../dev/null"),
        "jku": headed(jku="https://attacker.example/keys"),
        "jwk": headed(jwk={"kty": "oct", "k": b64(OTHER.encode())}),
        "x5u": headed(x5u="https://attacker.example/certificate"),
        "crit": headed(crit=["exp"]),
        "crit of nothing": headed(crit=[]),
        "b64": headed(b64=False, crit=["b64"]),
        "typ of another kind": headed(typ="at+jwt"),
        "no typ": signed({"alg": "HS256", "kid": header["kid"]}, claims),
    }
    wrong_claims = {f"no {name}": signed(header, {k: v for k, v in claims.items() if k != name}) for name in claims} | {
        "expired": but(exp=now - 1),
        "expiring now": but(exp=now),
        "issued tomorrow": but(iat=now + 86_400, exp=now + 90_000),
        "wrong audience": but(aud="someone else"),
        "several audiences": but(aud=["gembackend", "someone else"]),
        "wrong issuer": but(iss="someone else"),
        "an extra claim": but(admin=True),
        "not before": but(nbf=now - 60),
        "sub that is no id": but(sub="1 OR 1=1"),
        "sub in capitals": but(sub=claims["sub"].upper()),
        "sub of nobody": but(sub=str(uuid4())),
        "exp as text": but(exp=str(claims["exp"])),
        "exp as a float": but(exp=claims["exp"] + 0.5),
        "exp beyond all numbers": but(exp=10**400),
        "exp that is infinite": but(exp=float("inf")),
        "iat as a boolean": but(iat=True),
        "ver as text": but(ver="0"),
        "ver as a boolean": but(ver=False),
        "ver of the future": but(ver=claims["ver"] + 1),
        "ver of 2^63": but(ver=2**63),
        "ver below zero": but(ver=-1),
        "jti as a number": but(jti=7),
        "empty jti": but(jti=""),
    }
    return damaged | odd_headers | wrong_claims


@pytest.fixture
def chosen(database_url: str, redis_url: str) -> Callable[..., Any]:
    return lambda **environment: settings(database_url, redis_url, **environment)


async def test_only_our_own_unchanged_living_tokens_open_anything(chosen: Callable[..., Any]) -> None:
    async with Service(chosen()).running() as client:
        token = await client.join()
        table = forgeries(token)
        assert len(table) > 60
        accepted = {}
        for what, forged in table.items():
            answer = await client.call("GET", "/v1/user/me", token=forged)
            if answer.status != 401 or answer.code != "unauthorized" or answer.headers["WWW-Authenticate"] != "Bearer":
                accepted[what] = answer.status
        assert not accepted
        assert await client.alive(token)
        header, claims = jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})
        assert await client.alive(signed(header, claims)), "the table's own signatures are right"


async def test_only_one_bearer_header_opens_anything(chosen: Callable[..., Any]) -> None:
    shapes = ["", "Bearer", "Bearer ", "Basic {0}", "{0}", "Bearer {0} {0}", "Bearer {0}, Bearer {0}", "Bearer ,{0}"]
    shapes += ["Token {0}", "Bearer \u00ff{0}", "Bearer\u00a0{0}", "Bearer {0}\u00ff"]
    async with Service(chosen()).running() as client:
        token = await client.join()
        for shape in shapes:
            answer = await client.call("GET", "/v1/user/me", headers={"Authorization": shape.format(token)})
            assert (answer.status, answer.code) == (401, "unauthorized"), shape
        kinder = await client.call("GET", "/v1/user/me", headers={"Authorization": f"bearer   {token}"})
        assert kinder.status == 200


async def test_keys_may_be_added_and_dropped(chosen: Callable[..., Any]) -> None:
    phone = new_phone()
    async with Service(chosen()).running() as client:
        token = await client.join(phone)
    rotated = chosen(JWT_SECRET_KEY=OTHER, JWT_PREVIOUS_KEYS=SECRET)
    async with Service(rotated).running() as client:
        assert await client.alive(token)
        newer = await client.log_in(phone)
        assert jwt.get_unverified_header(newer)["kid"] != jwt.get_unverified_header(token)["kid"]
    async with Service(chosen(JWT_SECRET_KEY=OTHER)).running() as client:
        assert not await client.alive(token)
        assert await client.alive(newer)


async def test_a_token_that_has_been_seen_still_expires(chosen: Callable[..., Any]) -> None:
    async with Service(chosen(JWT_TTL_SECONDS="2")).running() as client:
        token = await client.join()
        expires = jwt.decode(token, options={"verify_signature": False})["exp"]
        await no_later(partial(client.dead, token), expires - time.time(), "expired")
        assert time.time() >= expires


def test_a_token_is_what_the_contract_says() -> None:
    token = Tokens(SECRET, (), 60).issue(user_id := uuid4(), 3)
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], audience="gembackend", issuer="gembackend")
    assert claims.keys() == {"sub", "iss", "aud", "iat", "exp", "jti", "ver"}
    assert (claims["sub"], claims["ver"], claims["exp"] - claims["iat"]) == (str(user_id), 3, 60)
    assert jwt.get_unverified_header(token).keys() == {"alg", "typ", "kid"}


def test_verified_tokens_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gembackend.auth.tokens.CACHE_CAPACITY", 2)
    tokens = Tokens(SECRET, (), 60)
    issued = [tokens.issue(uuid4(), 0) for _ in range(5)]
    for token in issued * 2:
        assert tokens.verify(token) == tokens.verify(token)
    with pytest.raises(Fault):
        tokens.verify(issued[0] + "x")
    assert len(tokens._verified) == 2
