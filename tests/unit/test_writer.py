"""The writer to Redis by itself: what it drops, what it keeps of how much, and how it finds out that Redis is back."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from uuid import UUID, uuid4

import pytest

from gembackend.plumbing import metrics
from gembackend.plumbing.redis_state import RedisState
from gembackend.prompts import writer as writing
from gembackend.prompts.stream import Stream
from gembackend.prompts.writer import Cast, Done, Finished, StreamWriter, Wake


class Shaky(Stream):
    """Takes what is written, unless it is away; `writes` are the (hints, acknowledgements) that came through."""

    def __init__(self) -> None:
        self.consumer = "here"
        self.away = False
        self.failures = 0
        self.writes: list[tuple[list[UUID], list[str]]] = []
        self._asked = asyncio.Event()

    async def write(
        self,
        hints: Iterable[UUID] = (),
        done: Sequence[str] = (),
        finished: Sequence[UUID] = (),  # noqa: ARG002
        casts: Sequence[bytes] = (),  # noqa: ARG002
    ) -> None:
        self._asked.set()
        if self.away:
            self.failures += 1
            raise ConnectionError("away")
        self.writes.append((list(hints), list(done)))

    async def leave(self) -> bool:
        return True

    async def until(self, failures: int = 0, writes: int = 0) -> None:
        """Wait until so many writes in all have failed and come through."""
        async with asyncio.timeout(10):
            while self.failures < failures or len(self.writes) < writes:
                self._asked.clear()
                await self._asked.wait()


@pytest.fixture
def stream() -> Shaky:
    return Shaky()


@pytest.fixture
def state() -> RedisState:
    return RedisState()


@pytest.fixture
async def writer(stream: Shaky, state: RedisState, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StreamWriter]:
    """A writer that has room for ten notes."""
    monkeypatch.setattr(writing, "CAPACITY", 10)
    monkeypatch.setattr(writing, "PAUSE_SECONDS", 0.01)
    started = StreamWriter(stream, state)
    started.start()
    yield started
    await started.stop(5)


def dropped() -> float:
    return float(metrics.HINTS_DROPPED._value.get())


async def test_only_hints_count_as_dropped_hints(stream: Shaky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "CAPACITY", 1)
    writer = StreamWriter(stream, RedisState())
    before = dropped()
    for note in (Wake(uuid4(), "test"), Cast(b"said"), Done(("1-1",)), Finished((uuid4(),))):
        writer.tell(note)
    assert dropped() == before, "the first was taken, and what was dropped are no hints"
    writer.tell(Wake(uuid4(), "test"))
    assert dropped() == before + 1


async def test_with_nothing_to_write_it_still_finds_out_that_redis_is_back(
    stream: Shaky, state: RedisState, writer: StreamWriter
) -> None:
    room = uuid4()
    stream.away = True
    writer.tell(Done(("1-1",)))
    writer.tell(Wake(room, "test"))
    await stream.until(failures=2)
    assert state.trouble is not None
    stream.away = False
    await stream.until(writes=1)
    await asyncio.sleep(0)
    assert state.trouble is None
    assert stream.writes == [([room], ["1-1"])], "what was kept back shows it, and no acknowledgement was lost"


async def test_acknowledgements_are_kept_while_redis_is_away_and_hints_are_not(
    stream: Shaky, writer: StreamWriter
) -> None:
    stream.away = True
    writer.tell(Done(("1-0", "2-0")))
    writer.tell(Wake(uuid4(), "test"))
    await stream.until(failures=1)
    writer.tell(Done(("3-0",)))
    await stream.until(failures=3)
    stream.away = False
    await stream.until(writes=1)
    later = uuid4()
    writer.tell(Wake(later, "test"))
    await stream.until(writes=2)
    assert [done for _, done in stream.writes] == [["1-0", "2-0", "3-0"], []]
    assert stream.writes[1][0] == [later]


async def test_of_the_acknowledgements_that_are_kept_the_oldest_go_when_there_are_too_many(
    stream: Shaky, writer: StreamWriter
) -> None:
    stream.away = True
    for turn in range(4):
        seen = stream.failures
        for number in range(5):
            writer.tell(Done((f"{turn}-{number}",)))
        await stream.until(failures=seen + 2)
    stream.away = False
    await stream.until(writes=1)
    assert stream.writes[0][1] == [f"{turn}-{number}" for turn in (2, 3) for number in range(5)]


async def test_what_was_kept_is_written_when_the_writer_stops(stream: Shaky, writer: StreamWriter) -> None:
    stream.away = True
    writer.tell(Done(("1-0",)))
    await stream.until(failures=1)
    stream.away = False
    await writer.stop(5)
    assert [done for _, done in stream.writes if done] == [["1-0"]]
