"""Of every change that is stored all hear who are to: listeners, waiters, other processes, and the admission count."""

from uuid import uuid4

import pytest

from gembackend.live.feed import Feed
from gembackend.live.waiters import Waiters
from gembackend.prompts.admission import Admission
from gembackend.prompts.announcer import Announcer
from gembackend.prompts.writer import Finished, Note, StreamWriter, Wake
from tests.feeds import ROOM, Line


class Noted(StreamWriter):
    """A writer that only keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[Note] = []

    def tell(self, note: Note) -> None:
        self.notes.append(note)


class Told:
    """An announcer, and all that it tells."""

    def __init__(self) -> None:
        self.feed, self.waiters, self.writer, self.admission = Feed(Line(), "here"), Waiters(), Noted(), Admission(10)
        self.admission.counted(5)
        self.announcer = Announcer(self.feed, self.waiters, self.writer, self.admission)


@pytest.fixture
def told() -> Told:
    return Told()


async def test_what_is_accepted_is_counted_hinted_and_heard_of(told: Told) -> None:
    with told.feed.listen(ROOM) as ear:
        told.announcer.accepted(ROOM)
        assert await ear.heard(0)
    assert told.admission.free() == 4
    assert told.writer.notes == [Wake(ROOM, "intake")]


async def test_a_change_is_heard_of_and_ends_nothing(told: Told) -> None:
    prompt_id = uuid4()
    with told.feed.listen(ROOM) as ear, told.waiters.watch(prompt_id) as finish:
        told.announcer.changed([ROOM])
        assert await ear.heard(0)
        assert not await finish.within(0)
    assert (told.admission.free(), told.writer.notes) == (5, [])


async def test_an_end_is_told_to_listeners_waiters_other_processes_and_the_count(told: Told) -> None:
    prompt_id, other = uuid4(), uuid4()
    with (
        told.feed.listen(ROOM) as ear,
        told.waiters.watch(prompt_id) as finish,
        told.waiters.watch(other) as unfinished,
    ):
        told.announcer.ended([ROOM], [prompt_id])
        assert await ear.heard(0)
        assert await finish.within(0)
        assert not await unfinished.within(0)
    assert told.admission.free() == 6
    assert told.writer.notes == [Finished((prompt_id,))]


async def test_of_a_prompt_that_is_cancelled_its_rooms_next_one_hears_too(told: Told) -> None:
    prompt_id = uuid4()
    told.announcer.cancelled(ROOM, prompt_id)
    assert told.writer.notes == [Finished((prompt_id,)), Wake(ROOM, "cancel")]
    assert told.admission.free() == 6


async def test_a_room_that_goes_without_unfinished_prompts_is_told_to_its_listeners_alone(told: Told) -> None:
    with told.feed.listen(ROOM) as ear:
        told.announcer.ended([ROOM], [])
        assert await ear.heard(0)
    assert (told.admission.free(), told.writer.notes) == (5, [])
