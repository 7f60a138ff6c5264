"""The journey behind a real nginx with its defaults: HTTP/1.0 to us, buffers, a path below a host."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
import asyncpg
import pytest

from gembackend.messages import export
from gembackend.plumbing.faults import Fault
from gembackend.web.docs import ASSETS
from tests.accounts import PASSWORD, Answer, Client, new_phone
from tests.billing import selling_at, stand_in
from tests.browser import Browser
from tests.nginx import Ports, nginx
from tests.rooms import fill
from tests.whole import Whole, whole_service

LIMIT = 20
"""Requests of one address to the auth endpoints; every journey below makes a few."""


class Browsing(Client):
    """A client of a service below a URL with a path."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        super().__init__(f"{parts.scheme}://{parts.netloc}")
        self.path = parts.path

    async def call(self, method: str, path: str, *arguments: Any, **options: Any) -> Answer:
        return await super().call(method, self.path + path, *arguments, **options)


@dataclass(frozen=True)
class Behind:
    """A service, its user without a proxy, and the URLs at which nginx has it."""

    whole: Whole
    urls: tuple[str, ...]


@pytest.fixture
async def behind(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Behind]:
    ports = Ports()
    async with stand_in() as stripe:
        environment = selling_at(stripe) | {
            "PUBLIC_BASE_URL": ports.urls()[0],
            "TRUSTED_PROXIES": "127.0.0.1/32",
            "AUTH_RATE_LIMIT": f"{LIMIT}/300",
        }
        async with (
            whole_service(database_url, redis_url, **environment) as whole,
            nginx(ports, urlsplit(whole.service.url).netloc, tmp_path),
        ):
            yield Behind(whole, ports.urls())


async def test_from_signing_up_to_the_export(behind: Behind) -> None:
    for url in behind.urls:
        async with Browsing(url) as client:
            await journey(client)


async def journey(client: Browsing) -> None:
    """Sign up, log in, ask, listen, read back, export, and follow every link."""
    card = (await client.call("GET", "/v1/")).body
    for link in card["links"].values():
        assert link.startswith("/api/")
        async with client.http.get(link) as found:
            assert found.status == 200, link
    client.token = await client.join()
    made = await client.call("POST", "/v1/chatroom/", {"name": "behind a proxy"})
    assert made.status == 201
    assert made.headers["Location"] == f"/api/v1/chatroom/{made.body['id']}"
    room = f"/v1/chatroom/{made.body['id']}"
    headers = {"Authorization": f"Bearer {client.token}"}
    async with client.http.get(f"{client.path}{room}/events", headers=headers) as events:
        assert events.status == 200 and events.content_type == "text/event-stream"
        asked = await client.call("POST", f"{room}/message", {"prompt": "hello"}, headers={"Prefer": "wait=20"})
        assert asked.status == 200 and asked.body["status"] == "answered"
        async with client.http.get(asked.headers["Location"], headers=headers) as prompt:
            assert (await prompt.json())["id"] == asked.body["id"]
        async with asyncio.timeout(10):
            async for line in events.content:
                if line == b"event: prompt.answered\n":
                    break
    rest = await client.call("GET", f"{room}/events", headers={"Last-Event-ID": "0-0", "Prefer": "wait=0"})
    assert rest.body.decode().count("event: prompt.answered") == 1
    exported = await client.call("GET", f"{room}/export/")
    assert (exported.status, len(exported.body["messages"])) == (200, 2)
    assert (await client.call("GET", f"{room}/message/all/?limit=1")).body["next_cursor"]
    assert (await client.call("GET", "/nowhere")).code == "not_found"
    assert (await client.call("GET", "/v1/user/me", token="x")).code == "unauthorized"


async def test_the_page_finds_its_files_and_the_description_its_server(behind: Behind) -> None:
    for url in behind.urls:
        async with aiohttp.ClientSession() as http:
            for page in (f"{url}/docs", f"{url}/docs/"):
                async with http.get(page, allow_redirects=False) as response:
                    text = await response.text()
                    assert response.status == 200
                for name in re.findall(r'(?:src|href)="([^":]+)"', text):
                    async with http.get(urljoin(page, name)) as response:
                        assert response.status == 200, (page, name)
                        assert await response.read() == (ASSETS / name.rpartition("/")[2]).read_bytes()
            async with http.get(f"{url}/openapi.json") as response:
                (server,) = (await response.json())["servers"]
            assert urljoin(f"{url}/openapi.json", server["url"]) == url


async def test_trying_it_out_works_in_a_browser(behind: Behind) -> None:
    async with Browser() as browser:
        for page in (f"{behind.urls[0]}/docs", f"{behind.urls[1]}/docs/"):
            await browser.open(page)
            await browser.shows("Whether the process answers")
            for part in (".opblock-summary-control", ".try-out__btn", ".execute"):
                await browser.press(f"#operations-Service-getLivez {part}")
            await browser.shows("x-request-id: ")  # which only a real answer has


async def test_who_comes_back_from_paying_finds_the_way(behind: Behind) -> None:
    async with Browsing(behind.urls[1]) as client:
        client.token = await client.join()
        started = await client.call("POST", "/v1/subscribe/pro", {})
        assert started.status == 200, started.body
        async with client.http.post(started.body["url"], allow_redirects=False) as paid:
            back = paid.headers["Location"]
        assert back.startswith(f"{behind.urls[0]}/checkout/success?session_id=cs_")
        async with client.http.get(back) as page:
            assert "You are Pro now" in await page.text()


async def test_clients_have_limits_of_their_own_and_cannot_forge_another(behind: Behind) -> None:
    async def statuses(address: str, count: int, **headers: str) -> list[int]:
        """Of so many requests of a client with an address of its own, which does not say much."""
        connector = aiohttp.TCPConnector(local_addr=(address, 0))
        async with aiohttp.ClientSession(connector=connector, headers=headers) as http:
            got = []
            for _ in range(count):
                async with http.post(f"{behind.urls[1]}/v1/auth/signup", json={}) as response:
                    got.append(response.status)
            return got

    assert await statuses("127.0.0.2", LIMIT + 1) == [422] * LIMIT + [429]
    forged = {"X-Forwarded-For": "198.51.100.1:1", "Forwarded": "for=198.51.100.1", "X-Real-IP": "198.51.100.1"}
    assert await statuses("127.0.0.2", 1, **forged) == [429]
    assert await statuses("127.0.0.3", 1, **forged) == [422]


async def test_an_export_that_breaks_is_not_taken_for_the_whole(
    behind: Behind, db: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, read, times = await behind.whole.room(), export.store.messages, 0
    await fill(db, room, 1000, 8000)

    async def failing(*arguments: Any) -> Any:
        nonlocal times
        times += 1
        if times == 4:
            raise Fault("database_unavailable", "as the test wants it")
        return await read(*arguments)

    monkeypatch.setattr(export.store, "messages", failing)
    token = behind.whole.client.token
    for url in behind.urls[:2]:
        times = 0
        async with Browsing(url) as client:
            with pytest.raises(aiohttp.ClientPayloadError):
                await client.call("GET", f"/v1/chatroom/{room}/export", token=token)
    monkeypatch.undo()
    async with Browsing(behind.urls[0]) as client:
        whole = await client.call("GET", f"/v1/chatroom/{room}/export", token=token)
        assert len(whole.body["messages"]) == 1000


async def test_a_prompt_as_long_as_may_be_passes(behind: Behind) -> None:
    async with Browsing(behind.urls[0]) as client:
        phone = new_phone()
        await client.sign_up(phone, PASSWORD)
        client.token = await client.log_in(phone)
        room = (await client.call("POST", "/v1/chatroom", {})).body["id"]
        asked = await client.call("POST", f"/v1/chatroom/{room}/message", {"prompt": "\U0001f600" * 8000})
        assert asked.status == 202, asked.body
