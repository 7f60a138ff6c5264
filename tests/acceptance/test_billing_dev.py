"""Becoming Pro in `gembackend dev` with no key: in a browser, and across a restart."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from tests.accounts import Client
from tests.billing import Buyer
from tests.browser import Browser
from tests.processes import ROOT, until

PATIENCE = 60.0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@asynccontextmanager
async def dev(data_dir: Path, port: int) -> AsyncIterator[Client]:
    """`gembackend dev` at work, and a client of it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gembackend", "dev"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "GEMBACKEND_DATA_DIR": str(data_dir),
            "SERVER_PORT": str(port),
        },
        cwd="/",
    )
    assert process.stdout is not None
    said: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE):
            while "gembackend is ready" not in (line := (await process.stdout.readline()).decode()):
                assert line, "it ended:\n" + "".join(said)
                said.append(line)
        assert any("STRIPE_SECRET_KEY is not set: a stand-in" in line for line in said)
        async with Client(f"http://127.0.0.1:{port}") as client:
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            await process.stdout.read()
            assert await process.wait() == 0


async def new_buyer(client: Client) -> Buyer:
    """A new user."""
    token = await client.join()
    me = await client.call("GET", "/v1/user/me", token=token)
    return Buyer(client, token, UUID(me.body["id"]))


async def test_from_signing_up_to_pro_and_back_to_basic_in_a_browser(tmp_path: Path) -> None:
    async with dev(tmp_path, free_port()) as client, Browser() as browser:
        buyer = await new_buyer(client)
        assert await buyer.tier() == "Basic"
        await browser.open((await buyer.subscribe())["url"])
        await browser.shows("no money moves")
        await browser.click("#pay")
        await browser.at(f"{client.base}/checkout/success?session_id=cs_")
        await browser.shows("You are Pro now")
        assert await buyer.tier() == "Pro"
        me = await client.call("GET", "/v1/user/me", token=buyer.token)
        assert me.body["usage"]["daily_limit"] is None

        portal = (await buyer.post("/v1/subscription/portal")).body["url"]
        await browser.open(portal)
        await browser.shows("is renewed on")
        await browser.click("#cancel")
        await browser.shows("The period ends on")

        async def cancelled() -> bool:
            return bool((await buyer.status())["cancel_at_period_end"])

        await until(cancelled, "cancelled")
        assert await buyer.tier() == "Pro"
        await browser.click("#end-period")
        await browser.shows("canceled")
        await buyer.becomes("Basic")
        assert (await buyer.status())["status"] == "canceled"


async def test_whoever_has_paid_is_pro_after_a_restart_and_can_cancel(tmp_path: Path) -> None:
    port = free_port()
    async with dev(tmp_path, port) as client:
        buyer = await new_buyer(client)
        started = await buyer.subscribe()
        async with client.http.post(started["url"], allow_redirects=False) as paid:
            assert paid.status == 303
        await buyer.becomes("Pro")
    async with dev(tmp_path, port) as client:
        again = Buyer(client, buyer.token, buyer.id)
        assert await again.tier() == "Pro"
        answer = await again.post("/v1/subscription/cancel")
        assert (answer.status, answer.body["cancel_at_period_end"]) == (200, True)
