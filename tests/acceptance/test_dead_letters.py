"""Dead letters, as an operator sees them and puts them back."""

import asyncio
import json
import os
import sys

from gembackend.embedded.gemini import Behaviour
from tests.acceptance.site import Site
from tests.processes import ROOT


async def dead_letters(site: Site, *arguments: str) -> tuple[int, str]:
    """Run `gembackend dead-letters`: its exit status and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gembackend", "dead-letters", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **site.database_environment},
        cwd="/",
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_dead_letters_are_listed_and_replayed_at_the_tail_of_their_room(site: Site) -> None:
    assert await dead_letters(site, "list") == (0, "No dead letters.\n")
    site.gemini.rule(lambda call: Behaviour(status="INVALID_ARGUMENT") if call.prompt.startswith("bad") else None)
    process = await site.start()
    user = await site.user(process, "Basic")
    room = await user.room(process)
    bad = [await user.accepted(process, room, f"bad {number}") for number in range(2)]
    good = await user.accepted(process, room, "good")
    assert (await user.finished(process, good))["status"] == "answered"
    assert await site.value("SELECT used FROM prompt_usage") == 1

    status, table = await dead_letters(site, "list")
    heading, *rows = table.splitlines()
    assert status == 0 and heading.split()[0] == "PROMPT" and len(rows) == 2
    assert [row.split()[0] for row in rows] == [bad[1], bad[0]], "newest first"
    assert "gemini_rejected" in rows[0] and "Gemini could not accept this prompt" in rows[0]
    assert "bad 1" not in table, "what users write is not shown"
    status, lines = await dead_letters(site, "list", "--json", "--limit", "1")
    assert status == 0
    (letter,) = map(json.loads, lines.splitlines())
    assert (letter["id"], letter["error_code"], letter["attempts"]) == (bad[1], "gemini_rejected", 1)

    status, words = await dead_letters(site, "replay", good)
    assert status == 1 and f"{good} is not a dead letter." in words.splitlines()
    site.gemini.default = Behaviour(text="now it works")
    site.gemini.script(Behaviour(text="now it works"))
    status, lines = await dead_letters(site, "replay", "--json", bad[0], "nonsense")
    assert status == 1
    assert [json.loads(line) for line in lines.splitlines()] == [
        {"id": bad[0], "status": "queued"},
        {"id": "nonsense", "status": "not_found"},
    ]
    replayed = await user.finished(process, bad[0])
    assert (replayed["status"], replayed["attempts"], replayed["error"]) == ("answered", 1, None)
    page = await user.call(process, "GET", f"/v1/chatroom/{room}/message/all")
    assert [message["content"] for message in page.body["messages"] if message["role"] == "user"] == ["good", "bad 0"]
    assert await site.value("SELECT used FROM prompt_usage") == 1, "its unit was given back and is not taken again"

    site.gemini.script(Behaviour(text="this too"))
    assert await dead_letters(site, "replay", "--all") == (0, "1 queued again, each at the tail of its chatroom.\n")
    assert (await user.finished(process, bad[1]))["status"] == "answered"
    assert await dead_letters(site, "list", "--json") == (0, "")
    await site.at_rest()
