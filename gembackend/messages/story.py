"""What a listener to a room has been told, and what that leaves to tell: pure, and without any memory but its place.

Every event carries the place behind it as its id, so a client that comes back with the last id it saw is told exactly
the rest, by whichever process: what is left follows from the place and from the database.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal
from uuid import UUID

from msgspec import structs

from gembackend.messages.models import Prompt, ReplyDelta, Status

Name = Literal["prompt.queued", "prompt.running", "reply.delta", "prompt.answered", "prompt.failed", "prompt.cancelled"]

_NUMBER = r"(?:0|[1-9][0-9]{0,17})"
_PLACE = re.compile(
    rf"({_NUMBER})-({_NUMBER})((?:\.{_NUMBER}(?:_{_NUMBER})?)*)(?:~({_NUMBER}):({_NUMBER}):({_NUMBER}))?"
)
_MOST_RANGES = 1000
_ENDS: dict[Status, Name] = {
    "answered": "prompt.answered",
    "failed": "prompt.failed",
    "cancelled": "prompt.cancelled",
}


@dataclass(frozen=True, slots=True)
class Run:
    """The attempt a listener was last told of: the prompt's sequence, its fence, and how many characters were told."""

    sequence: int
    fence: int
    told: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """How far a listener is in the story of a room, whose prompts are numbered by their sequence.

    It knows of every prompt up to `known`, and that those up to `ended` have ended; `early` are the ranges behind
    `ended` that have ended too, out of order, which is what cancelling does.
    """

    known: int
    ended: int
    early: tuple[tuple[int, int], ...] = ()
    run: Run | None = None

    def has_ended(self, sequence: int) -> bool:
        """Whether the listener knows that this prompt has ended."""
        return sequence <= self.ended or any(first <= sequence <= last for first, last in self.early)

    def __str__(self) -> str:
        ranges = "".join(f".{first}" if first == last else f".{first}_{last}" for first, last in self.early)
        run = f"~{self.run.sequence}:{self.run.fence}:{self.run.told}" if self.run else ""
        return f"{self.known}-{self.ended}{ranges}{run}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A prompt as the database has it, with its place in the room and the fence of its latest attempt."""

    sequence: int
    fence: int
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Event:
    """One event, and the place behind it."""

    name: Name
    data: Prompt | ReplyDelta
    place: Place


def parse_place(text: str) -> Place | None:
    """The place that an event id stands for; None when it is none of ours."""
    match = _PLACE.fullmatch(text)
    if match is None or match[3].count(".") > _MOST_RANGES:
        return None
    pairs = [part.partition("_") for part in match[3].split(".")[1:]]
    early = tuple((int(first), int(last or first)) for first, _, last in pairs)
    run = Run(int(match[4]), int(match[5]), int(match[6])) if match[4] else None
    return Place(int(match[1]), int(match[2]), early, run)


def starting_place(last: int, unfinished: int | None, early: Iterable[int]) -> Place:
    """Where a new listener begins: with every prompt that has not ended.

    `last` is the sequence of the room's newest prompt, `unfinished` that of the first one that has not ended, `early`
    are those behind it that have.
    """
    if unfinished is None:
        return Place(last, last)
    return Place(unfinished - 1, unfinished - 1, _joined(((one, one) for one in early), unfinished))


class Story:
    """Tells one listener what is left to tell, and keeps its place."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._open: list[int] = []
        self._speaking: Prompt | None = None

    @property
    def speaking(self) -> tuple[UUID, int] | None:
        """The prompt and fence of the attempt that `hear` takes text of; None while none is under way."""
        return (self._speaking.id, self.place.run.fence) if self._speaking and self.place.run else None

    def begin(self) -> None:
        """The room is going to be read again, from the place's `ended` on."""
        self._open.clear()
        self._speaking = None

    def read(self, entries: Iterable[Entry]) -> Iterator[Event]:
        """The events that these entries bring. Entries come in the order of the room, and none is left out."""
        for entry in entries:
            if not self.place.has_ended(entry.sequence):
                self._open.append(entry.sequence)
                yield from self._catch_up(entry.sequence, entry.fence, entry.prompt)

    def hear(self, text: str) -> Iterator[Event]:
        """The event that brings the listener to the end of `text`, all that the attempt under way has said so far."""
        if self._speaking is not None:
            yield from self._speak(self._speaking.id, text)

    def _catch_up(self, sequence: int, fence: int, prompt: Prompt) -> Iterator[Event]:
        if sequence > self.place.known:
            self.place = replace(self.place, known=sequence)
            yield self._event("prompt.queued", prompt if prompt.status == "queued" else _as(prompt, "queued"))
        attempted = prompt.status == "running" or (prompt.status in ("answered", "failed") and prompt.attempts > 0)
        if attempted and not self._knows(sequence, fence):
            self.place = replace(self.place, run=Run(sequence, fence))
            yield self._event("prompt.running", _as(prompt, "running"))
        if prompt.status == "running":
            self._speaking = prompt
        elif prompt.finished:
            if prompt.reply is not None:
                yield from self._speak(prompt.id, prompt.reply.content)
            self._end(sequence)
            yield self._event(_ENDS[prompt.status], prompt)

    def _knows(self, sequence: int, fence: int) -> bool:
        run = self.place.run
        return run is not None and (run.sequence, run.fence) == (sequence, fence)

    def _speak(self, prompt_id: UUID, text: str) -> Iterator[Event]:
        run = self.place.run
        if run is not None and len(text) > run.told:
            self.place = replace(self.place, run=replace(run, told=len(text)))
            yield self._event("reply.delta", ReplyDelta(prompt_id=prompt_id, text=text[run.told :]))

    def _end(self, sequence: int) -> None:
        """Take note that a prompt has ended. All before it have been read: those in `_open` have not ended."""
        self._open.remove(sequence)
        ended = self._open[0] - 1 if self._open else sequence
        early = [*self.place.early, (sequence, sequence)] if self._open else self.place.early
        run = self.place.run if self.place.run and self.place.run.sequence != sequence else None
        self.place = replace(self.place, ended=ended, early=_joined(early, ended), run=run)

    def _event(self, name: Name, data: Prompt | ReplyDelta) -> Event:
        return Event(name, data, self.place)


def _as(prompt: Prompt, status: Literal["queued", "running"]) -> Prompt:
    """The prompt as it was at an earlier time."""
    attempts = 0 if status == "queued" else prompt.attempts
    return structs.replace(
        prompt, status=status, attempts=attempts, finished_at=None, error=None, reply=None, usage=None
    )


def _joined(ranges: Iterable[tuple[int, int]], behind: int) -> tuple[tuple[int, int], ...]:
    """The parts of the ranges behind a number, in order, neighbours as one."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        elif first > behind:
            joined.append((first, last))
    return tuple(joined)
