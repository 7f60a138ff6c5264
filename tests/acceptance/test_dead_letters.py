"""Dead letters, as an operator sees them and puts them back."""

import asyncio
import json
import os
import subprocess
import sys

import asyncpg
import pytest

from gembackend import config
from gembackend.dead_letters import replay
from gembackend.embedded.gemini import Behaviour
from gembackend.prompts import dead_letter_store
from tests.acceptance.site import Site
from tests.processes import ROOT


async def dead_letters(site: Site, *arguments: str) -> tuple[int, str]:
    """Run `gembackend dead-letters`: its exit status and what it printed."""
    process = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "gembackend", "dead-letters", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **site.database_environment},
        cwd="/",
        text=True,
        check=False,
    )
    return process.returncode, process.stdout


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
    site.gemini.script(Behaviour(text="now it works"), Behaviour(text="this too"))
    status, lines = await dead_letters(site, "replay", "--json", bad[0], "nonsense")
    assert status == 1
    assert [json.loads(line) for line in lines.splitlines()] == [
        {"id": bad[0], "status": "queued"},
        {"id": "nonsense", "status": "not_found"},
    ]
    assert await dead_letters(site, "replay", "--all") == (0, "1 queued again, each at the tail of its chatroom.\n")
    for prompt_id in bad:
        replayed = await user.finished(process, prompt_id)
        assert (replayed["status"], replayed["attempts"], replayed["error"]) == ("answered", 1, None)
    page = await user.call(process, "GET", f"/v1/chatroom/{room}/message/all")
    asked = [message["content"] for message in page.body["messages"] if message["role"] == "user"]
    assert asked == ["good", "bad 0", "bad 1"]
    assert await site.value("SELECT used FROM prompt_usage") == 1, "its unit was given back and is not taken again"
    assert await dead_letters(site, "list", "--json") == (0, "")
    await site.at_rest()


async def test_many_dead_letters_are_queued_again_a_part_at_a_time_each_once_and_in_the_order_of_their_rooms(
    database_url: str, db: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letter_store, "REPLAYED_AT_ONCE", 7)
    await db.execute(
        """
        INSERT INTO users (id, phone, password_hash) VALUES (gen_random_uuid(), '+14155550100', 'x');
        INSERT INTO chatrooms_metadata (id, user_id, name, last_sequence)
        SELECT gen_random_uuid(), id, 'room', 10 FROM users, generate_series(1, 5);
        INSERT INTO prompts (id, user_id, chatroom_id, sequence, content, status, error_code, request_id, finished_at)
        SELECT gen_random_uuid(), user_id, id, n, n::text, 'failed', 'gemini_error', 'test', now() + n * interval '1 s'
        FROM chatrooms_metadata, generate_series(1, 10) n
        """
    )
    said: list[str] = []
    settings = config.load({"DATABASE_URL": database_url}, "store")
    assert await replay(settings, None, as_json=False, say=said.append) == 0
    assert said == ["50 queued again, each at the tail of its chatroom."]
    rows = await db.fetch(
        "SELECT array_agg(content ORDER BY sequence) AS told FROM prompts WHERE status = 'queued' GROUP BY chatroom_id"
    )
    assert [row["told"] for row in rows] == [[str(number) for number in range(1, 11)]] * 5
