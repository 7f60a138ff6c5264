"""The accounts journey, as a person goes through it."""

from collections.abc import AsyncIterator

import pytest

from tests.accounts import PASSWORD, Client, Service, new_phone, settings


@pytest.fixture
async def client(database_url: str, redis_url: str) -> AsyncIterator[Client]:
    async with Service(settings(database_url, redis_url)).running() as client:
        yield client


@pytest.mark.pooled
async def test_signing_up_logging_in_and_out(client: Client) -> None:
    phone = new_phone()
    signed_up = await client.post("signup", phone=phone, password=PASSWORD, name="Ada")
    assert signed_up.status == 201
    assert signed_up.body["user"] | {"id": "", "created_at": ""} == {
        "id": "",
        "phone": phone,
        "name": "Ada",
        "subscription_tier": "Basic",
        "created_at": "",
    }
    assert signed_up.body["user"]["created_at"].endswith("Z")

    sent = await client.post("send-otp", phone=phone, password=PASSWORD)
    assert sent.status == 200
    assert sent.body.keys() == {"message", "expires_in", "otp"}
    logged_in = await client.post("verify-otp", phone=phone, otp=sent.body["otp"])
    assert logged_in.status == 200
    assert logged_in.body.keys() == {"message", "token", "token_type", "expires_in"}
    assert (logged_in.body["token_type"], logged_in.body["expires_in"]) == ("Bearer", 1200)

    token = logged_in.body["token"]
    me = await client.call("GET", "/v1/user/me", token=token)
    assert me.body["usage"] == {"prompts_today": 0, "daily_limit": 5, "resets_at": me.body["usage"]["resets_at"]}
    assert (await client.post("logout", token=token)).status == 204
    assert not await client.alive(token)
    assert await client.alive(await client.log_in(phone))


async def test_a_verified_phone_is_taken(client: Client) -> None:
    phone = new_phone()
    await client.join(phone)
    again = await client.post("signup", phone=phone, password="another password")
    assert (again.status, again.code) == (409, "phone_taken")
    assert await client.log_in(phone)


async def test_signing_up_again_before_verifying_replaces_the_password_and_kills_codes(client: Client) -> None:
    phone = new_phone()
    await client.sign_up(phone)
    code = await client.otp(phone)
    await client.sign_up(phone, "another password")
    assert (await client.post("verify-otp", phone=phone, otp=code)).code == "invalid_otp"
    assert (await client.post("send-otp", phone=phone, password=PASSWORD)).code == "invalid_credentials"
    assert await client.log_in(phone, "another password")


@pytest.mark.pooled
async def test_resetting_a_forgotten_password(client: Client) -> None:
    phone = new_phone()
    token = await client.join(phone)
    code = (await client.post("forgot-password", phone=phone)).body["otp"]
    assert (await client.post("verify-otp", phone=phone, otp=code)).code == "invalid_otp"
    reset = await client.post("reset-password", phone=phone, otp=code, new_password="a new password")
    assert (reset.status, reset.body.keys()) == (200, {"message"})
    assert not await client.alive(token)
    assert (await client.post("send-otp", phone=phone, password=PASSWORD)).code == "invalid_credentials"
    assert await client.alive(await client.log_in(phone, "a new password"))


@pytest.mark.pooled
async def test_changing_a_password(client: Client) -> None:
    phone = new_phone()
    token = await client.join(phone)
    wrong = await client.post("change-password", token, old_password="not this one", new_password="a new password")
    assert (wrong.status, wrong.code) == (401, "invalid_credentials")
    changed = await client.post("change-password", token, old_password=PASSWORD, new_password="a new password")
    assert changed.status == 200
    assert not await client.alive(token)
    assert await client.alive(changed.body["token"])
    assert await client.alive(await client.log_in(phone, "a new password"))


@pytest.mark.parametrize("name", ["signup", "reset-password", "change-password"])
async def test_the_commonest_passwords_are_refused(client: Client, name: str) -> None:
    client.token = await client.join()
    bodies = {
        "signup": {"phone": new_phone(), "password": "Password123"},
        "reset-password": {"phone": new_phone(), "otp": "000000", "new_password": "iloveyou1"},
        "change-password": {"old_password": PASSWORD, "new_password": "1qaz2wsx"},
    }
    refused = await client.post(name, **bodies[name])
    assert (refused.status, refused.code) == (422, "validation_failed")
    assert refused.body["errors"][0]["field"] in ("password", "new_password")


async def test_passwords_are_taken_as_they_are_given(client: Client) -> None:
    phone, password = new_phone(), "  ünï çödé \t pass  "
    await client.sign_up(phone, password)
    assert (await client.post("send-otp", phone=phone, password=password.strip())).code == "invalid_credentials"
    assert await client.log_in(phone, password)


@pytest.mark.pooled
async def test_changing_a_name_and_leaving(client: Client) -> None:
    phone = new_phone()
    client.token = await client.join(phone)
    assert (await client.call("PATCH", "/v1/user/me", {"name": "Grace"})).body["name"] == "Grace"
    assert (await client.call("DELETE", "/v1/user/me", {"password": "not this one"})).code == "invalid_credentials"
    assert (await client.call("DELETE", "/v1/user/me", {"password": PASSWORD})).status == 204
    assert (await client.call("GET", "/v1/user/me")).code == "unauthorized"
    client.token = None
    assert (await client.post("send-otp", phone=phone, password=PASSWORD)).code == "invalid_credentials"
    assert await client.join(phone)
