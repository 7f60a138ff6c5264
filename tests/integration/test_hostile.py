"""Requests that nobody sends by mistake: each gets the 4xx it deserves, and never a 500."""

import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from yarl import URL

from tests.accounts import PASSWORD, new_phone
from tests.whole import Whole, whole_service

SIGNUP, ROOMS = "/v1/auth/signup", "/v1/chatroom"


@pytest.fixture
async def whole(database_url: str, redis_url: str) -> AsyncIterator[Whole]:
    async with whole_service(database_url, redis_url) as started:
        yield started


@dataclass(frozen=True)
class Hostile:
    """A request, and the status and code that it deserves."""

    status: int
    code: str
    path: str
    body: bytes | None = None
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


def of(value: Any) -> bytes:
    return json.dumps(value).encode()


def sign_up(**changed: Any) -> bytes:
    return of({"phone": new_phone(), "password": PASSWORD} | changed)


def typed(content_type: str, **headers: str) -> dict[str, str]:
    return {"Content-Type": content_type, **headers}


MALFORMED = {
    "empty": b"",
    "blank": b" \n ",
    "half an object": b'{"phone": ',
    "two objects": b"{}{}",
    "a trailing comma": b'{"name": "x",}',
    "single quotes": b"{'name': 'x'}",
    "a comment": b'{"name": "x"} // hi',
    "a byte order mark": b'\xef\xbb\xbf{"name": "x"}',
    "UTF-16": '{"name": "x"}'.encode("utf-16"),
    "invalid UTF-8": b'{"name": "\xff\xfe"}',
    "overlong UTF-8": b'{"name": "\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"name": "\xed\xa0\x80"}',
    "a raw NUL": b'{"name": "a\x00b"}',
    "a raw newline": b'{"name": "a\nb"}',
    "NaN": b'{"name": NaN}',
    "Infinity": b'{"name": -Infinity}',
    "a bad escape": b'{"name": "\\x41"}',
    "30,000 lists": b"[" * 30_000,
    "30,000 closed lists": b"[" * 30_000 + b"]" * 30_000,
    "9,000 objects": b'{"name":' * 7_000,
    "30,000 lists in a field": b'{"name":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "a 5,000-digit number": b'{"name": ' + b"9" * 5000 + b"}",
    "form data": b"name=x&y=z",
    "XML": b"<?xml version='1.0'?><name>x</name>",
}

INVALID = {
    "a list": of([]),
    "null": of(None),
    "a number": of(7),
    "a text": of("name"),
    "true": of(True),
    "no field": of({}),
    "an unknown field": of({"name": "x", "color": "red"}),
    "another user's id": of({"name": "x", "user_id": "01890a5d-ac96-774b-bcce-b302099a8057"}),
    "a tier": of({"name": "x", "subscription_tier": "Pro"}),
    "a prototype": of({"name": "x", "__proto__": {"admin": True}}),
    "a number for a text": of({"name": 7}),
    "a boolean for a text": of({"name": True}),
    "null for a text": of({"name": None}),
    "a list for a text": of({"name": ["x"]}),
    "an object for a text": of({"name": {"x": 1}}),
    "2^63 for a text": b'{"name": 9223372036854775808}',
    "1e400 for a text": b'{"name": 1e400}',
    "empty": of({"name": ""}),
    "too long": of({"name": "x" * 101}),
    "NUL": of({"name": "a\0b"}),
    "a lone high surrogate": b'{"name": "\\ud800"}',
    "a lone low surrogate": b'{"name": "\\udc00 x"}',
    "a lone surrogate as a field": b'{"\\ud800": 1}',
    "surrogates the wrong way round": b'{"name": "\\udc00\\ud800"}',
}

UNSUPPORTED = {
    "no type": {},
    "text": typed("text/plain"),
    "a form": typed("application/x-www-form-urlencoded"),
    "several parts": typed("multipart/form-data; boundary=x"),
    "JSON of a kind": typed("application/jsonp"),
    "latin-1": typed("application/json; charset=latin-1"),
    "UTF-7": typed("application/json; charset=utf-7"),
    "a bogus charset": typed('application/json; charset="\u00e9;;"'),
    "an empty charset": typed("application/json; charset=bogus-8"),
    "gzip": typed("application/json", **{"Content-Encoding": "gzip"}),
    "two encodings": typed("application/json", **{"Content-Encoding": "identity, gzip"}),
    "garbage": typed(";;;=\u00ff"),
}

PHONES: dict[str, Any] = {
    "no plus": "15551234567",
    "two zeros": "0015551234567",
    "spaces": "+1 555 123 4567",
    "a space in front": " +15551234567",
    "a newline behind": "+15551234567\n",
    "dashes": "+1-555-123-4567",
    "brackets": "+1(555)1234567",
    "too short": "+1234567",
    "too long": "+1234567890123456",
    "a leading zero": "+05551234567",
    "full-width digits": "+１５５５１２３４５６７",
    "Arabic digits": "+١٥٥٥١٢٣٤٥٦٧",
    "a full-width plus": "＋15551234567",
    "an invisible mark": "+1555123\u200b4567",
    "an extension": "+15551234567x1",
    "a number": 15551234567,
    "a list": ["+15551234567"],
    "SQL": "+1555'; DROP TABLE users; --",
    "empty": "",
    "null": None,
}


def attacks(room: str, prompt: str) -> dict[str, Hostile]:
    """The table, by what is wrong with each request."""
    messages = f"{ROOMS}/{room}/message"
    table = {f"malformed: {what}": Hostile(400, "malformed_json", ROOMS, raw) for what, raw in MALFORMED.items()}
    table |= {
        f"invalid: {what}": Hostile(422, "validation_failed", f"{ROOMS}/{room}", raw, "PATCH")
        for what, raw in INVALID.items()
    }
    table |= {
        f"unsupported: {what}": Hostile(415, "unsupported_media_type", ROOMS, of({"name": "x"}), headers=headers)
        for what, headers in UNSUPPORTED.items()
    }
    table |= {
        f"phone: {what}": Hostile(422, "validation_failed", SIGNUP, sign_up(phone=phone))
        for what, phone in PHONES.items()
    }
    table |= {
        f"cursor: {cursor[:20]}": Hostile(422, "validation_failed", f"{ROOMS}?cursor={cursor}", None, "GET")
        for cursor in ("", "x", "!!!", "%00", "%FF", "..%2F..", "bm90IGFuIGlk", "AAAA", "=" * 10, "x" * 5000)
    }
    table |= {
        f"limit: {limit[:20]}": Hostile(422, "validation_failed", f"{ROOMS}?limit={limit}", None, "GET")
        for limit in ("", "0", "-1", "201", "1e2", "NaN", "true", "9" * 4000, "%00", "%D9%A5", "9223372036854775808")
    }
    table |= {
        f"id: {name[:20]}": Hostile(404, "not_found", f"{ROOMS}/{name}", None, "GET")
        for name in (
            "1",
            "%00",
            "%FF%FE",
            room.upper(),
            room.replace("-", ""),
            "..%2Fuser",
            "x" * 4000,
            "null",
            f"{room}%0A",
        )
    }
    table |= {
        "auth body over 4 KiB": Hostile(413, "payload_too_large", SIGNUP, sign_up(name="x" * 4096)),
        "body over 64 KiB": Hostile(413, "payload_too_large", ROOMS, of({"name": "x" * 65_536})),
        "a prompt over what 8,000 characters may be": Hostile(
            413, "payload_too_large", messages, of({"prompt": "x" * (12 * 8000 + 1024)})
        ),
        "a prompt of 8,001 that is escaped": Hostile(
            422, "validation_failed", messages, of({"prompt": "\U0001f600" * 8001})
        ),
        "gzip that grows": Hostile(
            415,
            "unsupported_media_type",
            messages,
            gzip.compress(b" " * 10_000_000),
            headers=typed("application/json", **{"Content-Encoding": "gzip"}),
        ),
        "password of 7": Hostile(422, "validation_failed", SIGNUP, sign_up(password="seven77")),
        "password of 129": Hostile(422, "validation_failed", SIGNUP, sign_up(password="x" * 129)),
        "password with NUL": Hostile(422, "validation_failed", SIGNUP, sign_up(password="pass\0word")),
        "password that is common": Hostile(422, "validation_failed", SIGNUP, sign_up(password="PASSWORD1")),
        "verified by oneself": Hostile(422, "validation_failed", SIGNUP, sign_up(verified_at="2026-01-01T00:00:00Z")),
        "code as a number": Hostile(
            422, "validation_failed", "/v1/auth/verify-otp", of({"phone": new_phone(), "otp": 123456})
        ),
        "code with a newline": Hostile(
            422, "validation_failed", "/v1/auth/verify-otp", of({"phone": new_phone(), "otp": "123456\n"})
        ),
        "a tier for oneself": Hostile(
            422, "validation_failed", "/v1/user/me", of({"name": "x", "subscription_tier": "Pro"}), "PATCH"
        ),
        "a prompt that is empty": Hostile(422, "validation_failed", messages, of({"prompt": ""})),
        "a prompt that is too long": Hostile(422, "validation_failed", messages, of({"prompt": "x" * 8001})),
        "a prompt for someone": Hostile(422, "validation_failed", messages, of({"prompt": "x", "user_id": room})),
        "an idempotency key of 256": Hostile(
            422,
            "validation_failed",
            messages,
            of({"prompt": "x"}),
            headers=typed("application/json", **{"Idempotency-Key": "x" * 256}),
        ),
        "a method for nobody": Hostile(405, "method_not_allowed", f"/v1/prompt/{prompt}", None, "PUT"),
        "a method of no kind": Hostile(405, "method_not_allowed", ROOMS, None, "PROPFIND"),
        "a path with a slash behind": Hostile(404, "not_found", f"{ROOMS}/7/", None, "GET"),
        "a path in capitals": Hostile(404, "not_found", "/V1/CHATROOM", None, "GET"),
        "a path of dots": Hostile(404, "not_found", "/v1/%2e%2e/%2e%2e/etc/passwd", None, "GET"),
        "a path of 6 kB": Hostile(404, "not_found", "/" + "x" * 6000, None, "GET"),
        "a header of 20 kB": Hostile(400, "malformed_request", ROOMS, None, "GET", {"X-Long": "x" * 20_000}),
        "200 headers": Hostile(400, "malformed_request", ROOMS, None, "GET", {f"X-{nr}": "x" for nr in range(200)}),
        "a path of 20 kB": Hostile(400, "malformed_request", "/" + "x" * 20_000, None, "GET"),
    }
    return table


async def test_every_hostile_request_gets_the_answer_it_deserves(whole: Whole) -> None:
    client = whole.client
    room = await whole.room()
    prompt = (await whole.ask(room, "hello"))["id"]
    table = attacks(room, prompt)
    assert len(table) > 120
    wrong = {}
    for what, attack in table.items():
        headers = attack.headers | {"Authorization": f"Bearer {client.token}"}
        async with client.http.request(
            attack.method,
            URL(client.base + attack.path, encoded=True),
            data=attack.body,
            headers=headers,
            skip_auto_headers=["Content-Type"],
        ) as response:
            raw = await response.read()
        document = json.loads(raw) if response.content_type == "application/problem+json" else {}
        if (response.status, document.get("code")) != (attack.status, attack.code):
            wrong[what] = (response.status, document.get("code"), raw[:200])
        elif attack.status == 422 and not document["errors"][0]["field"]:
            wrong[what] = (response.status, "names no field", raw[:200])
    assert not wrong, "\n".join(f"{what}: {got}" for what, got in wrong.items())
    assert (await client.call("GET", "/livez")).status == 200
    assert (await client.call("GET", f"{ROOMS}/{room}")).body["name"] == "room"
