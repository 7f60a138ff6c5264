"""What the house does in one way only: waiting for an event, telling of an outage, numbering advisory locks."""

import ast
import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import gembackend
from gembackend.plumbing import locks
from gembackend.plumbing.outages import Outages
from gembackend.plumbing.waiting import within

PACKAGE = Path(gembackend.__file__).parent
NUMBER = re.compile(r"advisory\w*\((\d+)|classid = (\d+)")


async def test_an_event_that_comes_is_told_apart_from_one_that_does_not() -> None:
    event = asyncio.Event()
    assert not await within(event, 0.0)
    asyncio.get_running_loop().call_soon(event.set)
    assert await within(event, 60.0)
    assert await within(event, 0.0)


async def test_who_waits_for_an_event_may_be_called_off() -> None:
    waiting = asyncio.create_task(within(asyncio.Event(), 60.0))
    asyncio.get_running_loop().call_soon(waiting.cancel)
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_an_outage_is_news_when_it_begins_changes_and_ends() -> None:
    outages = Outages()
    assert not outages.works()
    assert [outages.failed(why) for why in ("refused", "refused", "slow", "slow")] == [True, False, True, False]
    assert outages.reason == "slow"
    assert [outages.works(), outages.works()] == [True, False]
    assert outages.reason is None and outages.failed("slow")


def test_parts_fail_and_recover_each_for_itself() -> None:
    outages = Outages()
    assert outages.failed("refused", "reading") and outages.failed("refused", "writing")
    assert outages.reasons == {"reading": "refused", "writing": "refused"}
    assert outages.works("reading") and not outages.works("reading")
    assert outages.reason == "refused" and dict(outages.reasons) == {"writing": "refused"}


def waits() -> Iterator[str]:
    """Every place that waits for an event, and for nothing else, within a bound of its own."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.AsyncWith(
                    items=[ast.withitem(context_expr=ast.Call(func=ast.Attribute(attr="timeout")))],
                    body=[ast.Expr(value=ast.Await(value=ast.Call(func=ast.Attribute(attr="wait"))))],
                ):
                    yield f"{path.relative_to(PACKAGE)}"


def test_a_bounded_wait_for_an_event_is_written_once() -> None:
    assert list(waits()) == ["plumbing/waiting.py"]


def test_every_advisory_lock_has_its_number_in_one_place_and_one_alone() -> None:
    numbers = {name: value for name, value in vars(locks).items() if name.isupper()}
    assert len(set(numbers.values())) == len(numbers)
    in_sql = {
        int(number)
        for path in (PACKAGE.parent / "sql").rglob("*.sql")
        for found in NUMBER.findall(path.read_text())
        for number in found
        if number
    }
    assert in_sql == {locks.MIGRATING, locks.MIGRATING_MARK}
    elsewhere = [
        str(path)
        for path in PACKAGE.rglob("*.py")
        if path.name != "locks.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and (node.value in numbers.values() or NUMBER.search(str(node.value)))
    ]
    assert elsewhere == []
