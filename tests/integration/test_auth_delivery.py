"""One-time codes on their way to the operator's SMS gateway."""

import asyncio
import dataclasses
import hmac
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from aiohttp import web

from gembackend import app, config
from gembackend.plumbing.metrics import REGISTRY
from tests.accounts import CHEAP, PASSWORD, Client, Service, new_phone, settings

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


def undelivered() -> float:
    """How many reset codes have been lost, as the metrics tell."""
    labels = {"purpose": "reset", "outcome": "undelivered"}
    return REGISTRY.get_sample_value("gembackend_otp_codes_total", labels) or 0


async def test_a_login_code_is_posted_and_signed_and_not_in_the_reply(
    chosen: config.Settings, gateway: Gateway
) -> None:
    phone = new_phone()
    async with Service(chosen).running() as client:
        await client.sign_up(phone)
        began = int(time.time())
        answer = await client.post("send-otp", phone=phone, password=PASSWORD)
        assert answer.body.keys() == {"message", "expires_in"}
        headers, body = gateway.sent.get_nowait()
        message = json.loads(body)
        assert message.keys() == {"phone", "code", "purpose", "expires_at"}
        assert (message["phone"], message["purpose"]) == (phone, "login")
        assert message["expires_at"].endswith("Z")
        signed = headers["X-Gembackend-Timestamp"].encode() + b"." + body
        assert headers["X-Gembackend-Signature"] == hmac.digest(SECRET.encode(), signed, "sha256").hex()
        assert began <= int(headers["X-Gembackend-Timestamp"]) <= time.time()
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


async def test_a_queue_that_is_full_is_told_to_everybody_and_no_code_is_made(
    chosen: config.Settings, gateway: Gateway, db: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gembackend.auth.delivery.MAX_UNDER_WAY", 2)
    gateway.answers = [None, None]
    phones = [new_phone() for _ in range(3)]
    service = Service(chosen)
    async with service.running() as client:
        for phone in phones:
            await client.sign_up(phone)
        for phone in phones[:2]:
            assert (await client.post("forgot-password", phone=phone)).status == 200
            await gateway.sent.get()
        refused = [await client.post("forgot-password", phone=phone) for phone in (phones[2], phones[0], new_phone())]
        assert {(answer.status, answer.code) for answer in refused} == {(503, "otp_delivery_failed")}
        assert len({tuple(sorted(answer.headers)) for answer in refused}) == 1
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        assert await db.fetchval("SELECT count(*) FROM otp_challenges") == 2
        await service.auth.delivery.stop(0)
        await service.auth.delivery.start()
        assert (await client.post("forgot-password", phone=phones[2])).status == 200, "no wait for what was refused"


async def test_parallel_requests_find_room_for_as_many_codes_as_there_is(
    chosen: config.Settings, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gembackend.auth.delivery.MAX_UNDER_WAY", 3)
    gateway.answers = [None] * 10
    phones = [new_phone() for _ in range(10)]
    service = Service(chosen)
    async with service.running() as client:
        for phone in phones:
            await client.sign_up(phone)
        answers = await asyncio.gather(*(client.post("forgot-password", phone=phone) for phone in phones))
        await service.auth.delivery.stop(0)
        assert Counter(answer.status for answer in answers) == {200: 3, 503: 7}


async def test_a_stop_gives_codes_under_way_the_time_that_is_left(
    database_url: str, redis_url: str, gateway: Gateway
) -> None:
    environment = {"OTP_DELIVERY": "webhook", "OTP_WEBHOOK_URL": gateway.url, "OTP_WEBHOOK_SECRET": SECRET}
    chosen = settings(database_url, redis_url, GEMINI_ENDPOINT="grpc://127.0.0.1:1", **environment)
    service = app.Service(dataclasses.replace(chosen, server_port=0), password_cost=CHEAP)
    await service.start()
    async with Client(service.url) as client:
        phone, lost = new_phone(), undelivered()
        await client.sign_up(phone)
        gateway.answers = [None]
        assert (await client.post("forgot-password", phone=phone)).status == 200
        await gateway.sent.get()
    began = asyncio.get_running_loop().time()
    await service.stop(1.5)
    assert asyncio.get_running_loop().time() - began < 1.5 + 5, "not the grace and five seconds"
    assert undelivered() == lost + 1, "what is given up is told"


async def test_showing_codes_in_replies_is_loud(database_url: str, redis_url: str, chosen: config.Settings) -> None:
    async with Service(settings(database_url, redis_url)).running():
        assert REGISTRY.get_sample_value("gembackend_otp_codes_in_responses") == 1
    async with Service(chosen).running():
        assert REGISTRY.get_sample_value("gembackend_otp_codes_in_responses") == 0
