"""The writer to Redis by itself: what it drops, what it keeps, and how it finds out that Redis is back."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from redis.exceptions import ConnectionError as Away

from gembackend.plumbing import metrics
from gembackend.prompts import writer as writing
from gembackend.prompts.redis_state import RedisState
from gembackend.prompts.writer import Cast, Done, Finished, StreamWriter, Wake


class Line:
    """Stands where the stream does: takes what is written, or is away."""

    consumer = "here"

    def __init__(self) -> None:
        self.away = False
        self.written: list[tuple[list[Any], list[str]]] = []
        self.heard = asyncio.Event()

    async def write(self, hints: Any, done: Sequence[str], *_others: object) -> None:
        """One round trip."""
        self.written.append((list(hints), list(done)))
        self.heard.set()
        if self.away:
            raise Away

    async def leave(self) -> bool:
        """Nothing is held."""
        return True


def dropped() -> float:
    return float(metrics.HINTS_DROPPED._value.get())


async def test_only_hints_count_as_dropped_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "CAPACITY", 1)
    writer = StreamWriter(Line(), RedisState())  # type: ignore[arg-type]
    before = dropped()
    for note in (Wake(uuid4(), "test"), Cast(b"said"), Done(("1-1",)), Finished((uuid4(),))):
        writer.tell(note)
    assert dropped() == before, "the first was taken, and what was dropped are no hints"
    writer.tell(Wake(uuid4(), "test"))
    assert dropped() == before + 1


async def test_with_nothing_to_write_it_still_finds_out_that_redis_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "PAUSE_SECONDS", 0.01)
    line, state, room = Line(), RedisState(), uuid4()
    writer = StreamWriter(line, state)  # type: ignore[arg-type]
    line.away = True
    writer.start()
    writer.tell(Done(("1-1",)))
    writer.tell(Wake(room, "test"))
    async with asyncio.timeout(5):
        while state.trouble is None:
            line.heard.clear()
            await line.heard.wait()
            await asyncio.sleep(0)
        line.away = False
        while state.trouble is not None:
            line.heard.clear()
            await line.heard.wait()
            await asyncio.sleep(0)
    assert line.written[-1] == ([room], ["1-1"]), "what was kept back shows it, and no acknowledgement was lost"
    await writer.stop()
