"""What became of the prompts that were accepted, and how fast work went on after a fault."""

import time
from dataclasses import dataclass
from typing import Any

from tests.acceptance.site import Site
from tests.processes import until


@dataclass(frozen=True, slots=True)
class Account:
    """Counts of prompts. `accepted` is what clients were told; all but `answered` and `failed` are to be zero.

    `lost`: accepted but unknown, unfinished, or answered without both messages. `repeated`: stored more than once, as
    a prompt or as a reply. `out_of_order`: finished before one that was accepted earlier in its room. `miscounted`:
    units of quota that are not accepted less refunded. `misheard`: not told to a listener once and whole.
    """

    accepted: int
    answered: int
    failed: int
    lost: int
    repeated: int
    out_of_order: int
    miscounted: int
    misheard: int = 0

    @property
    def clean(self) -> bool:
        """Whether every promise was kept."""
        return self.lost == self.repeated == self.out_of_order == self.miscounted == self.misheard == 0


_FACTS = """
    WITH told AS (
        SELECT unnest($1::text[])::uuid AS id
    ), replies AS (
        SELECT p.id, count(m.*) FILTER (WHERE m.role = 'user' AND m.content = p.content) AS questions,
               count(m.*) FILTER (WHERE m.role = 'assistant' AND m.content LIKE '%“' || p.content || '”%') AS answers,
               count(m.*) AS messages
        FROM prompts p LEFT JOIN chatrooms_messages m ON m.prompt_id = p.id GROUP BY p.id
    ), neighbours AS (
        SELECT finished_at < max(finished_at) OVER earlier
               OR sent_at(content) < max(sent_at(content)) OVER earlier AS late
        FROM prompts
        WINDOW earlier AS (PARTITION BY chatroom_id ORDER BY sequence ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
    )
    SELECT
        (SELECT count(*) FROM told JOIN prompts p USING (id) WHERE p.status = 'answered') AS answered,
        (SELECT count(*) FROM told JOIN prompts p USING (id) WHERE p.status = 'failed') AS failed,
        (SELECT count(*) FROM told LEFT JOIN prompts p USING (id) LEFT JOIN replies USING (id)
         WHERE p.id IS NULL OR p.status IN ('queued', 'running')
            OR (p.status = 'answered' AND (replies.questions, replies.answers) IS DISTINCT FROM (1, 1))) AS lost,
        (SELECT count(*) - count(DISTINCT content) FROM prompts)
            + (SELECT count(*) FROM replies WHERE messages > 2) AS repeated,
        (SELECT count(*) FROM neighbours WHERE late) AS out_of_order,
        (SELECT coalesce(sum(used), 0) FROM prompt_usage)
            - (SELECT count(*) FROM prompts WHERE status <> 'failed') AS miscounted
"""


async def account(site: Site, told: list[str]) -> Account:
    """Compare what clients were told with what is stored.

    Texts must all be different and say `text(n)`, n rising in each room; replies must be the stand-in's own.
    """
    await site.fetch(
        "CREATE OR REPLACE FUNCTION sent_at(content text) RETURNS integer IMMUTABLE LANGUAGE sql "
        "RETURN substring(content FROM '[0-9]+$')::integer"
    )
    facts = (await site.fetch(_FACTS, told))[0]
    return Account(
        accepted=len(told),
        answered=facts["answered"],
        failed=facts["failed"],
        lost=facts["lost"],
        repeated=facts["repeated"],
        out_of_order=facts["out_of_order"],
        miscounted=int(facts["miscounted"]),
    )


_HEADS = """
    SELECT * FROM (
        SELECT DISTINCT ON (chatroom_id) id, fence, available_at FROM prompts
        WHERE status IN ('queued', 'running') ORDER BY chatroom_id, sequence
    ) head WHERE available_at <= now()
"""
_STUCK = """
    SELECT count(*) FROM prompts p
    JOIN unnest($1::uuid[], $2::bigint[], $3::timestamptz[]) AS head (id, fence, available_at)
        USING (id, fence, available_at)
    WHERE p.status IN ('queued', 'running')
"""


async def recovery(site: Site, seconds: float) -> float:
    """Wait until each room that has work now has moved on: its head finished, tried again or claimed anew.

    Returns how many seconds that took; fails after `seconds`.
    """
    begun = time.monotonic()
    heads = await site.fetch(_HEADS)
    columns: list[list[Any]] = [[head[name] for head in heads] for name in ("id", "fence", "available_at")]

    async def moved_on() -> bool:
        return bool(await site.value(_STUCK, *columns) == 0)

    await until(moved_on, "every room goes on", seconds)
    return time.monotonic() - begun


async def finished_prompts(site: Site, room: str) -> list[tuple[str, str, str | None]]:
    """The prompts of a room that have ended: id, status and reply."""
    rows = await site.fetch(
        """
        SELECT p.id::text, p.status, m.content
        FROM prompts p LEFT JOIN chatrooms_messages m ON m.prompt_id = p.id AND m.role = 'assistant'
        WHERE p.chatroom_id = $1::text::uuid AND p.finished_at IS NOT NULL
        """,
        room,
    )
    return [(row[0], row[1], row[2]) for row in rows]
