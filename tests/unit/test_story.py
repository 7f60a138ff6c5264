"""What listeners are told: whatever happens in a room and whenever they look, hang up and come back."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from uuid import UUID, uuid4

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gembackend.messages.models import Message, Prompt, PromptError, ReplyDelta, Status
from gembackend.messages.story import Entry, Event, Place, Run, Story, parse_place, starting_place

NOW = datetime(2026, 11, 22, tzinfo=UTC)
ROOM = uuid4()


@dataclass
class Row:
    """A prompt as the database has it, and what its attempt under way has said."""

    sequence: int
    id: UUID = field(default_factory=uuid4)
    status: Status = "queued"
    attempts: int = 0
    fence: int = 0
    said: str = ""
    ends: int = 0
    beginnings: int = 1

    def entry(self) -> Entry:
        reply = None
        if self.status == "answered":
            reply = Message(id="x_A", role="assistant", content=self.said, created_at=NOW, prompt_id=self.id)
        prompt = Prompt(
            id=self.id,
            chatroom_id=ROOM,
            status=self.status,
            prompt="?",
            attempts=self.attempts,
            created_at=NOW,
            finished_at=NOW if self.finished else None,
            error=PromptError(code="c", message="m") if self.status == "failed" else None,
            reply=reply,
        )
        return Entry(self.sequence, self.fence, prompt)

    @property
    def finished(self) -> bool:
        return self.status not in ("queued", "running")


class Room(RuleBasedStateMachine):
    """A room, and one client that looks now and then, hangs up, and comes back with the id of an event it got."""

    @initialize(early=st.lists(st.sampled_from(["queued", "answered", "cancelled"]), max_size=4))
    def listen(self, early: list[Status]) -> None:
        self.rows: list[Row] = []
        self.last = 0
        for status in early:
            self.send()
            if status == "answered" and (head := self.head()) is not None:
                self.claim()
                self.end_head("answered", "early")
                head.beginnings = head.ends = 0
            elif status == "cancelled":
                self.rows[-1].status = "cancelled"
                self.rows[-1].beginnings = 0
        head = self.head()
        for row in self.rows:
            if row.finished:
                row.beginnings = row.ends = 0
        behind = [row.sequence for row in self.rows if head and row.finished and row.sequence > head.sequence]
        self.story = Story(starting_place(self.last, head.sequence if head else None, behind))
        self.received: list[Event] = []

    def head(self) -> Row | None:
        return next((row for row in self.in_order() if not row.finished), None)

    def in_order(self) -> list[Row]:
        return sorted(self.rows, key=lambda row: row.sequence)

    @rule()
    def send(self) -> None:
        self.last += 1
        self.rows.append(Row(self.last))

    @precondition(lambda self: self.head() and self.head().status == "queued")
    @rule()
    def claim(self) -> None:
        head = self.head()
        assert head is not None
        head.status, head.attempts, head.fence, head.said = "running", head.attempts + 1, head.fence + 1, ""

    @precondition(lambda self: self.head() and self.head().status == "running")
    @rule(piece=st.text("äb😀", min_size=1, max_size=5))
    def say(self, piece: str) -> None:
        head = self.head()
        assert head is not None
        head.said += piece

    @precondition(lambda self: self.head() and self.head().status == "running")
    @rule(status=st.sampled_from(["answered", "failed", "queued"]), piece=st.text("xy", min_size=1, max_size=3))
    def end_head(self, status: Status, piece: str) -> None:
        head = self.head()
        assert head is not None
        head.said += piece
        head.status = status
        head.ends += head.finished

    @precondition(lambda self: self.head())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from([row for row in self.in_order() if not row.finished]))
        row.status = "cancelled"
        row.ends += 1

    @precondition(lambda self: any(row.status == "failed" for row in self.rows))
    @rule()
    def replay(self) -> None:
        """A dead letter gets a new place; whoever had not seen its end will not see it."""
        row = next(row for row in self.rows if row.status == "failed")
        if not self.story.place.has_ended(row.sequence):
            self.look()
        self.last += 1
        row.sequence, row.status, row.attempts = self.last, "queued", 0
        row.beginnings += 1

    @rule(limit=st.integers(1, 3))
    def look(self, limit: int = 2) -> None:
        """Read the room as the route does, page by page, and then what is being said."""
        self.story.begin()
        behind = self.story.place.ended
        while True:
            page = [row.entry() for row in self.in_order() if row.sequence > behind][:limit]
            self.received.extend(self.story.read(page))
            if len(page) < limit:
                break
            behind = page[-1].sequence
        if self.story.speaking is not None:
            row = next(row for row in self.rows if row.id == self.story.speaking[0])
            assert (row.fence, row.status) == (self.story.speaking[1], "running")
            self.received.extend(self.story.hear(row.said))

    @precondition(lambda self: self.received and not any(row.beginnings > 1 for row in self.rows))
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        """Lose the latest events, and go on behind one of those that arrived."""
        kept = data.draw(st.integers(1, len(self.received)))
        del self.received[kept:]
        place = parse_place(str(self.received[-1].place))
        assert place == self.received[-1].place
        self.story = Story(place)

    @invariant()
    def what_was_told_is_in_order(self) -> None:
        for row in getattr(self, "rows", ()):
            names = [event.name for event in self.received if _prompt_id(event) == row.id]
            for before, after in pairwise(names):
                assert after in FOLLOWS[before], names

    def teardown(self) -> None:
        if not hasattr(self, "rows"):
            return
        self.look()
        for row in self.rows:
            mine = [event for event in self.received if _prompt_id(event) == row.id]
            names = [event.name for event in mine]
            assert names.count("prompt.queued") == row.beginnings, (row, names)
            ends = [name for name in names if name in ("prompt.answered", "prompt.failed", "prompt.cancelled")]
            assert len(ends) == row.ends, (row, names)
            if row.finished and row.ends:
                assert ends[-1] == f"prompt.{row.status}"
            if row.beginnings and row.status in ("running", "answered"):
                begun = max(number for number, name in enumerate(names) if name == "prompt.running")
                texts = [event.data.text for event in mine[begun:] if isinstance(event.data, ReplyDelta)]
                assert "".join(texts) == row.said and all(texts)
        if all(row.finished for row in self.rows) and self.received:
            assert self.story.place.run is None
            assert all(self.story.place.has_ended(row.sequence) for row in self.rows)


ENDS = {"prompt.answered", "prompt.failed", "prompt.cancelled"}
FOLLOWS = {
    "prompt.queued": {"prompt.running", *ENDS},
    "prompt.running": {"prompt.running", "reply.delta", *ENDS},
    "reply.delta": {"reply.delta", "prompt.running", *ENDS},
    "prompt.failed": {"prompt.queued"},
    "prompt.answered": set[str](),
    "prompt.cancelled": set[str](),
}


def _prompt_id(event: Event) -> UUID:
    return event.data.prompt_id if isinstance(event.data, ReplyDelta) else event.data.id


TestRoom = Room.TestCase


@pytest.mark.parametrize(
    "place",
    [
        Place(0, 0),
        Place(12, 7, ((9, 9), (11, 12)), Run(8, 3, 120)),
        Place(10**17, 10**17, (), Run(1, 1)),
    ],
)
def test_a_place_survives_being_an_event_id(place: Place) -> None:
    assert parse_place(str(place)) == place


@pytest.mark.parametrize(
    "text", ["", "x", "1", "1-", "-1-2", "1-2.", "1-2~", "1-2~3", "1-2~3:4", "01-2", "1-2 ", "1-2\n", "1" * 30, "٣-٤"]
)
def test_what_is_no_place_is_none(text: str) -> None:
    assert parse_place(text) is None


def test_an_id_of_a_hostile_length_is_refused() -> None:
    assert parse_place("1-1" + ".5" * 5000) is None
    assert parse_place("5-1" + ".2" * 5000) is None


def test_a_gap_between_prompts_does_not_keep_the_place_behind_for_ever() -> None:
    story = Story(Place(1, 1))
    events = list(story.read([Row(5, status="cancelled").entry(), Row(9, status="cancelled").entry()]))
    assert [event.name for event in events] == ["prompt.queued", "prompt.cancelled"] * 2
    assert story.place == Place(9, 9)


def test_a_failed_prompt_was_running_first_for_those_who_did_not_see_it() -> None:
    story = Story(Place(0, 0))
    names = [event.name for event in story.read([Row(1, status="failed", attempts=5, fence=5).entry()])]
    assert names == ["prompt.queued", "prompt.running", "prompt.failed"]


def test_a_new_attempt_is_told_from_its_beginning() -> None:
    story, row = Story(Place(0, 0)), Row(1, status="running", attempts=1, fence=1)
    list(story.read([row.entry()]))
    list(story.hear("nothing usable"))
    row.attempts = row.fence = 2
    story.begin()
    assert [event.name for event in story.read([row.entry()])] == ["prompt.running"]
    assert [event.data for event in story.hear("better")] == [ReplyDelta(prompt_id=row.id, text="better")]


def test_prompts_that_end_out_of_order_make_one_range_when_they_are_neighbours() -> None:
    story = Story(Place(0, 0))
    rows = [Row(1), *(Row(number, status="cancelled") for number in (2, 3, 4, 6))]
    list(story.read([row.entry() for row in rows]))
    assert story.place == Place(6, 0, ((2, 4), (6, 6)))
