"""The count that the other acceptance tests and the chaos run rely on notices what it is there to notice."""

from dataclasses import asdict
from uuid import UUID

import pytest

from gembackend.plumbing.ids import new_id
from tests.acceptance.accounting import account
from tests.acceptance.site import Site


async def three_answered(site: Site) -> list[UUID]:
    """Three prompts of one room, answered one after another as the engine would."""
    user, room, prompts = new_id(), new_id(), [new_id() for _ in range(3)]
    await site.fetch("INSERT INTO users (id, phone, password_hash) VALUES ($1, '+15550001111', 'x')", user)
    await site.fetch("INSERT INTO chatrooms_metadata (id, user_id, name) VALUES ($1, $2, 'room')", room, user)
    await site.fetch("INSERT INTO prompt_usage VALUES ($1, current_date, 3)", user)
    for turn, prompt in enumerate(prompts):
        await site.fetch(
            "INSERT INTO prompts (id, user_id, chatroom_id, sequence, content, status, request_id, finished_at) "
            "VALUES ($1, $2, $3, $4, $5, 'answered', 'test', now())",
            prompt,
            user,
            room,
            turn + 1,
            f"text {turn}",
        )
        for place, (role, text) in enumerate([("user", f"text {turn}"), ("assistant", f"You wrote: “text {turn}”.")]):
            await site.fetch(
                "INSERT INTO chatrooms_messages VALUES ($1, $2, $3, $4, $5, $6, now())",
                f"{prompt}{role}",
                room,
                prompt,
                2 * turn + place,
                role,
                text,
            )
    return prompts


async def test_what_was_kept_counts_as_kept(site: Site) -> None:
    told = [str(prompt) for prompt in await three_answered(site)]
    result = await account(site, told)
    assert result.clean and (result.accepted, result.answered, result.failed) == (3, 3, 0)


@pytest.mark.parametrize(
    ("harm", "broken"),
    [
        ("DELETE FROM prompts WHERE content = 'text 1'", {"lost": 1, "miscounted": 1}),
        ("UPDATE prompts SET status = 'queued', finished_at = NULL WHERE content = 'text 2'", {"lost": 1}),
        ("DELETE FROM chatrooms_messages WHERE position = 3", {"lost": 1}),
        ("UPDATE chatrooms_messages SET content = 'You wrote: “text 0”.' WHERE position = 3", {"lost": 1}),
        ("UPDATE prompts SET content = 'text 0' WHERE content = 'text 1'", {"repeated": 1, "lost": 1}),
        ("UPDATE prompts SET finished_at = now() + interval '1 s' WHERE sequence = 2", {"out_of_order": 1}),
        ("UPDATE prompts SET sequence = 9 WHERE sequence = 1", {"out_of_order": 1}),
        ("UPDATE prompt_usage SET used = 4", {"miscounted": 1}),
        ("UPDATE prompts SET status = 'failed', error_code = 'x' WHERE sequence = 1", {"miscounted": 1}),
    ],
)
async def test_what_was_broken_is_counted(site: Site, harm: str, broken: dict[str, int]) -> None:
    told = [str(prompt) for prompt in await three_answered(site)]
    await site.fetch(harm)
    result = asdict(await account(site, told))
    counted = {name: result[name] for name in ("lost", "repeated", "out_of_order", "miscounted") if result[name]}
    assert counted == broken
