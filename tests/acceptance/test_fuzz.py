"""Schemathesis against a running service: whatever the description allows or forbids, each answer is as described."""

import asyncio
import sys
from pathlib import Path

from tests.acceptance.site import Site, User
from tests.accounts import PASSWORD
from tests.billing import selling_at, stand_in
from tests.processes import Process

SECONDS = 120.0
"""When a run is taken for stuck; it takes about fifteen, and three times as long on a busy machine."""

CONFIG = """\
[headers]
Authorization = "Bearer {token}"

[checks]
enabled = true

# Logging out ends every session, so it gets a user of its own.
[[operations]]
include-path = "/v1/auth/logout"
headers = {{ Authorization = "Bearer {other_token}" }}

# A stream goes on for as long as anybody listens; and an id may be none of an event of this room.
[[operations]]
include-path = "/v1/chatroom/{{chatroom_id}}/events"
headers = {{ Authorization = "Bearer {token}", Prefer = "wait=0" }}
checks.positive_data_acceptance.enabled = false

# A cursor that the service never gave, a key that was used before and a signature may be well-formed and yet wrong.
[[operations]]
include-path-regex = "^/v1/(chatroom(/.+/message(/all)?)?|prompt/.+/regenerate|search|webhook/stripe)$"
checks.positive_data_acceptance.enabled = false
"""


async def someone(site: Site, process: Process) -> tuple[User, str]:
    """A user whose password is not the description's example, and a token."""
    user = await site.user(process)
    change = {"old_password": PASSWORD, "new_password": "nobody will guess this"}
    answer = await user.call(process, "POST", "/v1/auth/change-password", change)
    assert answer.status == 200, answer.body
    return user, answer.body["token"]


async def test_no_answer_is_undescribed_and_none_is_a_server_error(site: Site, tmp_path: Path) -> None:
    async with stand_in() as stripe:
        await fuzz(await site.start(**selling_at(stripe)), site, tmp_path)


async def fuzz(process: Process, site: Site, directory: Path) -> None:
    """Run Schemathesis against a process."""
    user, token = await someone(site, process)
    _, other_token = await someone(site, process)
    config = directory / "schemathesis.toml"
    config.write_text(CONFIG.format(token=token, other_token=other_token))
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
        *("run", f"{process.url}/openapi.json", "--max-examples", "10", "--seed", "20260131"),
        *("--generation-database", "none", "--no-color"),
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(SECONDS):
            output, _ = await run.communicate()
    except TimeoutError:
        run.kill()
        raise
    assert run.returncode == 0, output.decode()
    me = await user.call(process, "GET", "/v1/user/me", Authorization=f"Bearer {token}")
    assert me.status == 200, "it was not logged in to the end"
    described = (await site.get(process, "/openapi.json")).body["paths"]
    reached = {line["route"] for line in process.events("request")}
    assert described.keys() - reached == set()
