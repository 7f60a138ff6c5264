"""Nothing secret in any log line or metric, whatever goes well or wrong."""

import asyncio
import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
import structlog

from gembackend.embedded.gemini import Behaviour
from gembackend.plumbing import logs
from tests.accounts import PASSWORD, SECRET, Client, new_phone
from tests.whole import Whole, whole_service

API_KEY = "canary-api-key-5f1b"
PROMPT = "canary prompt about a secret garden"
WRONG = "canary wrong password"


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Everything that is logged, down to the debug level."""
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    logs.configure("debug", "json", stream)
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


async def raw(client: Client, request: str) -> None:
    """Send something that need not be HTTP."""
    host, port = client.base.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request.encode("latin1"))
    async with asyncio.timeout(5):
        await reader.read()
    writer.close()


async def succeed(whole: Whole, phone: str) -> set[str]:
    """Go through everything that works; the secrets that it brought forth."""
    client = whole.client
    await client.sign_up(phone)
    code = await client.otp(phone)
    token = (await client.post("verify-otp", phone=phone, otp=code)).body["token"]
    client.token = token
    await whole.ask(await whole.room(), PROMPT)
    await client.call("GET", f"/v1/chatroom?cursor={token}")
    reset = (await client.post("forgot-password", phone=phone)).body["otp"]
    await client.post("reset-password", phone=phone, otp=reset, new_password=PASSWORD)
    client.token = await client.log_in(phone)
    return {code, token, reset, client.token}


async def fail(whole: Whole, phone: str) -> None:
    """Go through what clients can get wrong, and Gemini."""
    client, token = whole.client, whole.client.token
    await client.post("signup", phone=phone, password=WRONG)
    await client.post("signup", phone=f"{phone} ", password=WRONG)
    await client.post("signup", phone=phone, password=WRONG, otp=phone)
    await client.post("send-otp", phone=phone, password=WRONG)
    await client.post("verify-otp", phone=phone, otp="000000")
    await client.post("change-password", token, old_password=WRONG, new_password=WRONG)
    await client.call("GET", f"/v1/nowhere/{phone}?token={token}&password={WRONG}")
    await client.call("GET", "/v1/user/me", token=f"{token}x")
    await raw(client, f"GET /livez HTTP/1.1\r\nHost: t\r\nAuthorization Bearer {token}\r\n\r\n")
    await raw(client, f"GET /livez HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {token}\0\r\n\r\n")
    await raw(client, f"{token} {phone}\r\n\r\n")
    room = await whole.room()
    for behaviour in (Behaviour(status="INVALID_ARGUMENT", detail=PROMPT), Behaviour(block_reason="SAFETY")):
        whole.gemini.script(behaviour)
        await whole.ask(room, PROMPT)


async def break_down(whole: Whole, phone: str) -> None:
    """Go on while the database misbehaves in ways that put arguments into its errors, and then is gone."""
    client = whole.client
    async with whole.service.database.connection() as connection:
        await connection.execute(
            """
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'refused: %', NEW USING DETAIL = NEW::text; END $$;
            CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION refuse();
            CREATE TRIGGER refuse BEFORE INSERT ON prompts FOR EACH ROW EXECUTE FUNCTION refuse();
            ALTER TABLE otp_challenges ADD CHECK (phone_key IS NULL) NOT VALID;
            """
        )
    room = await client.call("POST", "/v1/chatroom", {})
    broken = [
        await client.post("signup", phone=new_phone(), password=PASSWORD),
        await client.post("forgot-password", phone=phone),
        await client.call("PATCH", "/v1/user/me", {"name": PROMPT}),
        await client.call("POST", f"/v1/chatroom/{room.body['id']}/message", {"prompt": PROMPT}),
    ]
    assert {answer.code for answer in broken} == {"internal_error"}
    await whole.service.database.close()
    gone = [
        await client.post("signup", phone=new_phone(), password=PASSWORD),
        await client.post("send-otp", phone=phone, password=PASSWORD),
        await client.call("PATCH", "/v1/user/me", {"name": PROMPT}),
    ]
    assert {answer.code for answer in gone} == {"database_unavailable"}
    await whole.service.database.open()


async def test_no_secret_is_logged_or_measured(database_url: str, redis_url: str, written: io.StringIO) -> None:
    phone = new_phone()
    async with whole_service(database_url, redis_url, GEMINI_API_KEY=API_KEY) as whole:
        secrets = {phone, phone[1:], PASSWORD, WRONG, PROMPT, SECRET, API_KEY, *await succeed(whole, phone)}
        await fail(whole, phone)
        await break_down(whole, phone)
        whole.client.token = None
        measured = (await whole.client.call("GET", "/metrics")).body.decode()
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert len(lines) > 40
    assert any("exception" in line for line in lines), "the unexpected has been logged, so the test tests something"
    logged = "\n".join(json.dumps(line | {"timestamp": "", "duration_ms": 0}, ensure_ascii=False) for line in lines)
    for secret in secrets:
        # A code is a number like any other, unless it stands alone.
        pattern = rf"(?<![\d.]){secret}(?![\d.])" if secret.isdigit() and len(secret) == 6 else re.escape(secret)
        assert not re.search(pattern, logged), re.search(pattern, logged)
        assert not re.search(pattern, measured)
