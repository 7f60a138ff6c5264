"""The feed between two processes over a line that may lose news; the real line is in test_events.py."""

from uuid import uuid4

import pytest

from gembackend.live import feed as feeds
from gembackend.live.feed import Feed
from gembackend.prompts import outcome
from gembackend.prompts.store import Claimed
from gembackend.prompts.voice import Voice
from tests.feeds import ROOM, Line, claim


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def worker(line: Line) -> Feed:
    return joined(line, "worker")


@pytest.fixture
def hearer(line: Line) -> Feed:
    return joined(line, "hearer")


def joined(line: Line, name: str) -> Feed:
    line.feeds.append(Feed(line, name))
    return line.feeds[-1]


def begin(worker: Feed, claimed: Claimed) -> Voice:
    assert worker.begin(claimed.chatroom_id, claimed.id, claimed.fence), "somebody listens"
    return Voice(worker, claimed)


def test_nobody_hears_so_nothing_is_said_and_nothing_sent(worker: Feed, line: Line) -> None:
    assert not worker.begin(ROOM, uuid4(), 1)
    worker.changed([ROOM])
    assert line.sent == []


def test_text_travels_to_the_process_that_listens(worker: Feed, hearer: Feed) -> None:
    with hearer.listen(ROOM) as ear:
        claimed = claim()
        voice = begin(worker, claimed)
        voice("one ")
        voice("two")
        assert ear.text(claimed.id, claimed.fence) == "one two"


def test_each_prompt_of_a_room_has_its_own_text_though_fences_repeat(worker: Feed, hearer: Feed) -> None:
    with hearer.listen(ROOM) as ear:
        for text in ("the first one's long answer", "short"):
            claimed = claim()
            begin(worker, claimed)(text)
            assert ear.text(claimed.id, claimed.fence) == text
            worker.hush(ROOM, claimed.id, claimed.fence)


def test_a_new_attempt_begins_anew(worker: Feed, hearer: Feed) -> None:
    with hearer.listen(ROOM) as ear:
        first = claim()
        begin(worker, first)("nothing usable")
        second = claim(2, first.id)
        begin(worker, second)("better")
        assert (ear.text(first.id, 1), ear.text(first.id, 2)) == ("", "better")


def test_a_late_piece_of_an_attempt_that_lost_its_lease_silences_nobody(worker: Feed, hearer: Feed, line: Line) -> None:
    zombie, prompt_id = joined(line, "zombie"), uuid4()
    with hearer.listen(ROOM) as ear, worker.listen(ROOM) as at_work:
        late = begin(zombie, claim(1, prompt_id))
        late("too ")
        voice = begin(worker, claim(2, prompt_id))
        voice("one ")
        late("late")
        begin(zombie, claim(7))("of an earlier prompt")
        assert at_work.text(prompt_id, 2) == "one "
        voice("two")
        assert at_work.text(prompt_id, 2) == ear.text(prompt_id, 2) == "one two"


def test_a_reply_is_said_no_further_than_it_is_stored(worker: Feed, hearer: Feed) -> None:
    with hearer.listen(ROOM) as ear:
        claimed = claim()
        voice = begin(worker, claimed)
        for _ in range(3):
            voice("x" * 30_000)
        assert ear.text(claimed.id, claimed.fence) == "x" * outcome.LONGEST_REPLY


def test_who_joins_late_is_told_everything_so_far(worker: Feed, hearer: Feed) -> None:
    with hearer.listen(ROOM):
        claimed = claim()
        voice = begin(worker, claimed)
        voice("one ")
    with hearer.listen(ROOM) as ear:
        assert ear.text(claimed.id, 1) == "one "
        voice("two")
        assert ear.text(claimed.id, 1) == "one two"


def test_a_text_with_a_gap_is_asked_for_and_never_told_with_it(
    worker: Feed, hearer: Feed, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "ASK_SECONDS", 3600.0)
    with hearer.listen(ROOM) as ear:
        claimed = claim()
        voice = begin(worker, claimed)
        voice("one ")
        line.cut = True
        voice("two ")
        line.cut = False
        voice("three ")
        assert ear.text(claimed.id, 1) == "one two three "
        line.cut = True
        voice("four ")
        line.cut = False
        asked = len(line.sent)
        voice("five ")
        voice("six ")
        assert ear.text(claimed.id, 1) == "one two three "
        assert len(line.sent) == asked + 2, "the same gap is not asked for again and again"


def test_repeated_and_overlapping_messages_say_nothing_twice(worker: Feed, hearer: Feed, line: Line) -> None:
    with hearer.listen(ROOM) as ear:
        claimed = claim()
        voice = begin(worker, claimed)
        voice("one ")
        voice("two ")
        for payload in [*line.sent, *reversed(line.sent)]:
            hearer.take(payload)
        assert ear.text(claimed.id, 1) == "one two "


async def test_a_change_wakes_listeners_here_and_there_and_text_alone_is_no_change(worker: Feed, hearer: Feed) -> None:
    with hearer.listen(ROOM) as there, worker.listen(ROOM) as here:
        say = begin(worker, claim())
        assert [await ear.heard(1.0) for ear in (there, here)] == [True, True], "an attempt has begun"
        say("one")
        assert [await ear.heard(1.0) for ear in (there, here)] == [False, False]
        worker.changed([ROOM])
        assert [await ear.heard(1.0) for ear in (there, here)] == [True, True]
        assert await there.heard(0.01) is False


def test_a_room_that_is_not_spoken_of_any_more_is_forgotten(
    worker: Feed, hearer: Feed, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(feeds, "monotonic", lambda: now)
    with hearer.listen(ROOM):
        now += feeds.ATTENDED_SECONDS - 1
        hearer.announce()
        now += feeds.ATTENDED_SECONDS - 1
        worker.announce()
        sent = len(line.sent)
        worker.changed([ROOM])
        assert len(line.sent) == sent + 1
    now += feeds.ATTENDED_SECONDS + 1
    worker.announce()
    sent = len(line.sent)
    worker.changed([ROOM])
    assert len(line.sent) == sent
    assert worker.begin(ROOM, uuid4(), 1), "who listened a moment ago may be back for the reply"
    now += feeds.LINGER_SECONDS
    worker.announce()
    assert not worker.begin(ROOM, uuid4(), 1)


def test_a_message_of_another_version_is_left(hearer: Feed) -> None:
    with hearer.listen(ROOM):
        for payload in (b"", b"\xff\xff", b"\x81\xa4type\xa4what"):
            hearer.take(payload)


async def test_closing_lets_every_listener_go(hearer: Feed) -> None:
    with hearer.listen(ROOM) as ear:
        hearer.close()
        assert ear.closed
        assert await ear.heard(60.0) is False
        assert await ear.heard(60.0) is False
