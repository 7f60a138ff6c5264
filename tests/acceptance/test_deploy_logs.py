"""The table of log events is the code's, and one request id leads through the whole life of a prompt."""

import ast
import re
from collections.abc import Iterator

from tests.acceptance.site import Site
from tests.processes import ROOT

LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "critical": "critical"}
Event = tuple[str, str, frozenset[str]]


def written() -> Iterator[Event]:
    """The name, level and fields of every event that the package logs."""
    levels = {**LEVELS, "exception": "error"}
    for path in (ROOT / "gembackend").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log"), attr=method),
                    args=[ast.Constant(value=str(name))],
                    keywords=keywords,
                ) if method in levels:
                    fields = {str(keyword.arg).replace("exc_info", "exception") for keyword in keywords}
                    yield name, levels[method], frozenset(fields | ({"exception"} if method == "exception" else set()))


def described() -> Iterator[Event]:
    """The same of every row of the table."""
    for name, level, fields in re.findall(r"(?m)^\| `(\w+)` \| (\w+) \| ([^|]*)\|", (ROOT / "ops/logs.md").read_text()):
        yield name, level, frozenset(re.findall(r"`(\w+)`", fields))


def test_the_table_lists_exactly_what_is_logged() -> None:
    assert set(described()) == set(written())


def test_every_event_has_a_name_to_search_for() -> None:
    names = [name for name, _, _ in written()]
    assert len(names) > 40
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in names)


async def test_one_request_id_leads_from_the_post_to_the_answer(site: Site) -> None:
    process = await site.start()
    user = await site.user(process)
    prompt_id = await user.accepted(process, await user.room(process), "Why?", X_Request_ID="follow-me")
    await user.finished(process, prompt_id)
    await process.logged("prompt_finished", request_id="follow-me")
    for event in ("prompt_accepted", "attempt_ended", "prompt_finished"):
        assert [line["prompt_id"] for line in process.events(event, request_id="follow-me")] == [prompt_id]
    assert process.events("request", request_id="follow-me", route="/v1/chatroom/{chatroom_id}/message", status=202)
