"""One-time codes on their way to the operator's SMS gateway."""

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from gembackend import config
from gembackend.plumbing.metrics import REGISTRY
from tests.accounts import PASSWORD, Service, new_phone, settings

SECRET = "the gateway's secret"


class Gateway:
    """An SMS gateway that keeps what it is sent, and answers what it is told: a status, or None for nothing at all."""

    def __init__(self) -> None:
        self.answers: list[int | None] = []
        self.sent: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()
        self.url = ""

    async def receive(self, request: web.Request) -> web.Response:
        await self.sent.put((dict(request.headers), await request.read()))
        status = self.answers.pop(0) if self.answers else 204
        if status is None:
            await asyncio.Event().wait()
        return web.Response(status=status or 204, headers={"Location": "/elsewhere"})

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Gateway"]:
        app = web.Application()
        app.router.add_post("/codes", self.receive)
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site.port}/codes"
        yield self
        await runner.cleanup()


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway().running() as gateway:
        yield gateway


@pytest.fixture
def chosen(database_url: str, redis_url: str, gateway: Gateway) -> config.Settings:
    return settings(
        database_url,
        redis_url,
        OTP_DELIVERY="webhook",
        OTP_WEBHOOK_URL=gateway.url,
        OTP_WEBHOOK_SECRET=SECRET,
        OTP_RESEND_SECONDS="30",
    )


async def test_a_login_code_is_posted_and_signed_and_not_in_the_reply(
    chosen: config.Settings, gateway: Gateway
) -> None:
    phone = new_phone()
    async with Service(chosen).running() as client:
        await client.sign_up(phone)
        answer = await client.post("send-otp", phone=phone, password=PASSWORD)
        assert answer.body.keys() == {"message", "expires_in"}
        headers, body = gateway.sent.get_nowait()
        message = json.loads(body)
        assert message.keys() == {"phone", "code", "purpose", "expires_at"}
        assert (message["phone"], message["purpose"]) == (phone, "login")
        assert message["expires_at"].endswith("Z")
        signed = headers["X-Gembackend-Timestamp"].encode() + b"." + body
        assert headers["X-Gembackend-Signature"] == hmac.digest(SECRET.encode(), signed, "sha256").hex()
        assert abs(int(headers["X-Gembackend-Timestamp"]) - time.time()) < 5
        assert (await client.post("verify-otp", phone=phone, otp=message["code"])).status == 200


async def test_a_gateway_in_trouble_is_tried_again_with_the_same_key(chosen: config.Settings, gateway: Gateway) -> None:
    phone = new_phone()
    gateway.answers = [500, 429, 204]
    async with Service(chosen).running() as client:
        await client.sign_up(phone)
        assert (await client.post("send-otp", phone=phone, password=PASSWORD)).status == 200
    sent = [gateway.sent.get_nowait() for _ in range(3)]
    assert len({headers["Idempotency-Key"] for headers, _ in sent}) == 1
    assert len({body for _, body in sent}) == 1


@pytest.mark.parametrize(("answers", "attempts"), [([503, 503, 503], 3), ([400], 1), ([302], 1), ([None], 1)])
async def test_a_code_that_cannot_be_sent_is_a_503_and_no_reason_to_wait(
    chosen: config.Settings, gateway: Gateway, answers: list[int | None], attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gembackend.auth.delivery.PATIENCE_SECONDS", 0.9)
    phone = new_phone()
    gateway.answers = answers
    async with Service(chosen).running() as client:
        await client.sign_up(phone)
        failed = await client.post("send-otp", phone=phone, password=PASSWORD)
        assert (failed.status, failed.code) == (503, "otp_delivery_failed")
        assert int(failed.headers["Retry-After"]) >= 1
        assert gateway.sent.qsize() == attempts
        code = json.loads(gateway.sent.get_nowait()[1])["code"]
        assert (await client.post("verify-otp", phone=phone, otp=code)).code == "invalid_otp"
        assert (await client.post("send-otp", phone=phone, password=PASSWORD)).status == 200


async def test_a_reset_is_answered_alike_and_posted_for_a_real_phone_only(
    chosen: config.Settings, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gembackend.auth.delivery.ATTEMPT_SECONDS", 0.3)
    known, unknown = new_phone(), new_phone()
    gateway.answers = [None]
    async with Service(chosen).running() as client:
        await client.sign_up(known)
        answers = [await client.post("forgot-password", phone=phone) for phone in (unknown, known)]
        assert [answer.status for answer in answers] == [200, 200]
        assert answers[0].body == answers[1].body
        _, body = await gateway.sent.get()
        assert (json.loads(body)["phone"], json.loads(body)["purpose"]) == (known, "reset")
        again = [await client.post("forgot-password", phone=phone) for phone in (unknown, known)]
        assert {answer.code for answer in again} == {"otp_cooldown"}
    posted = {json.loads(gateway.sent.get_nowait()[1])["phone"] for _ in range(gateway.sent.qsize())}
    assert posted <= {known}


async def test_showing_codes_in_replies_is_loud(database_url: str, redis_url: str, chosen: config.Settings) -> None:
    async with Service(settings(database_url, redis_url)).running():
        assert REGISTRY.get_sample_value("gembackend_otp_codes_in_responses") == 1
    async with Service(chosen).running():
        assert REGISTRY.get_sample_value("gembackend_otp_codes_in_responses") == 0
