"""What listeners to a room hear at once: that a prompt changed, and what Gemini is saying, from any process.

PostgreSQL has the story; the feed only says when to look, and carries the text that is not stored yet. Processes tell
each other which rooms are listened to, so that nothing is sent about the others. Everything sent may get lost: the
poll makes up for a change, and a gap in a text is asked for, or closed by the stored reply.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from uuid import UUID

from gembackend.live import wire
from gembackend.live.wire import Attend, Changed, News, Said
from gembackend.plumbing.waiting import within

ATTENDED_SECONDS = 15.0
"""How long a room counts as listened to in another process after that process has last said so."""
LINGER_SECONDS = 600.0
"""How long replies to a room are streamed after its last listener: who listened once will listen again."""
ASK_SECONDS = 1.0
"""The least time between two questions for the same missing text."""
ROOMS_TOLD_AT_ONCE = 500
MOST_HEARD = 2
"""Of so many prompts of a room the words of other processes are kept: of the one that is worked on, and of one that a
process which has lost its lease still speaks of."""

Send = Callable[[bytes], None]
"""Sends news to every process that listens, this one too; it may get lost."""


@dataclass(slots=True)
class _Words:
    """All that an attempt has said so far; `mine` if it runs in this process."""

    fence: int
    mine: bool
    text: str = ""


class Ear:
    """One listener."""

    def __init__(self, feed: "Feed", chatroom_id: UUID) -> None:
        self._feed = feed
        self._chatroom_id = chatroom_id
        self._news = asyncio.Event()
        self._changed = False

    @property
    def closed(self) -> bool:
        """Whether this process is shutting down."""
        return self._feed.closed

    async def heard(self, seconds: float) -> bool:
        """Wait for news at most so long; tells whether a prompt of the room has changed, beyond having said more."""
        if not self.closed and not await within(self._news, seconds):
            return False
        self._news.clear()
        changed, self._changed = self._changed, False
        return changed

    def text(self, prompt_id: UUID, fence: int) -> str:
        """All that this attempt at a prompt has said so far, as far as it is known here."""
        return self._feed.text(self._chatroom_id, prompt_id, fence)

    def rouse(self) -> None:
        """End the wait under way, or the next one."""
        self._news.set()

    def wake(self, *, changed: bool) -> None:
        """There is news."""
        self._changed |= changed
        self._news.set()


class Feed:
    """This process's listeners, what they hear, and what is told to other processes through `send`."""

    def __init__(self, send: Send, process: str) -> None:
        self.closed = False
        self._send = send
        self._process = process
        self._ears: defaultdict[UUID, set[Ear]] = defaultdict(set)
        self._elsewhere: dict[UUID, float] = {}
        self._lingering: dict[UUID, float] = {}
        self._words: defaultdict[UUID, dict[UUID, _Words]] = defaultdict(dict)
        self._asked: dict[UUID, float] = {}

    @contextmanager
    def listen(self, chatroom_id: UUID) -> Iterator[Ear]:
        """Listen to a room until the block ends."""
        ear = Ear(self, chatroom_id)
        self._ears[chatroom_id].add(ear)
        self._tell(Attend(self._process, [chatroom_id], wants=True))
        try:
            yield ear
        finally:
            ears = self._ears[chatroom_id]
            ears.discard(ear)
            if not ears:
                self._forget(chatroom_id)

    def rooms(self) -> list[UUID]:
        """The rooms that somebody listens to in this process."""
        return list(self._ears)

    def changed(self, chatroom_ids: Iterable[UUID]) -> None:
        """Prompts of these rooms have changed, as this process has just stored."""
        for chatroom_id in chatroom_ids:
            self.wake(chatroom_id, changed=True)
            if chatroom_id in self._elsewhere:
                self._tell(Changed(self._process, chatroom_id))

    def begin(self, chatroom_id: UUID, prompt_id: UUID, fence: int) -> bool:
        """An attempt begins in this process; tells whether anybody would hear what it says."""
        heard = any(chatroom_id in register for register in (self._ears, self._elsewhere, self._lingering))
        if heard:
            self._words[chatroom_id][prompt_id] = _Words(fence, mine=True)
        self.changed([chatroom_id])
        return heard

    def say(self, chatroom_id: UUID, prompt_id: UUID, fence: int, piece: str) -> None:
        """An attempt of this process has said more."""
        words = self._words_of(chatroom_id, prompt_id, fence)
        if words is None or not piece:
            return
        start = len(words.text)
        words.text += piece
        self.wake(chatroom_id, changed=False)
        if chatroom_id in self._elsewhere:
            self._tell(Said(self._process, chatroom_id, prompt_id, fence, start, piece))

    def hush(self, chatroom_id: UUID, prompt_id: UUID, fence: int) -> None:
        """An attempt of this process is over, and what came of it is stored."""
        if self._words_of(chatroom_id, prompt_id, fence) is not None:
            self._drop(chatroom_id, prompt_id)

    def text(self, chatroom_id: UUID, prompt_id: UUID, fence: int) -> str:
        """All that this attempt at a prompt has said so far, as far as it is known here."""
        words = self._words_of(chatroom_id, prompt_id, fence)
        return words.text if words is not None else ""

    def wake(self, chatroom_id: UUID, *, changed: bool) -> None:
        """Let this process's listeners to a room know."""
        for ear in self._ears.get(chatroom_id, ()):
            ear.wake(changed=changed)

    def take(self, payload: bytes) -> None:
        """News of some process, maybe of this one; what cannot be read is left."""
        news = wire.decode(payload)
        if news is None or news.process == self._process:
            return
        match news:
            case Attend():
                self._attended(news)
            case Changed():
                self.wake(news.room, changed=True)
            case Said():
                self._hear(news)

    def announce(self) -> None:
        """Tell other processes what is listened to here, and forget what they have not said for too long."""
        rooms = self.rooms()
        for first in range(0, len(rooms), ROOMS_TOLD_AT_ONCE):
            self._tell(Attend(self._process, rooms[first : first + ROOMS_TOLD_AT_ONCE], wants=False))
        now = monotonic()
        for register in (self._elsewhere, self._lingering):
            for chatroom_id in [room for room, until in register.items() if until < now]:
                del register[chatroom_id]

    def close(self) -> None:
        """Let every listener go, now and from now on: this process is shutting down."""
        self.closed = True
        for chatroom_id in self.rooms():
            self.wake(chatroom_id, changed=False)

    def _attended(self, news: Attend) -> None:
        now = monotonic()
        for room in news.rooms:
            self._elsewhere[room] = now + ATTENDED_SECONDS
            self._lingering[room] = now + LINGER_SECONDS
            if news.wants:
                for prompt_id, words in self._words.get(room, {}).items():
                    if words.mine and words.text:
                        self._tell(Said(self._process, room, prompt_id, words.fence, 0, words.text))

    def _hear(self, news: Said) -> None:
        """Keep what another process's attempt says in a room that is listened to here."""
        if news.room not in self._ears:
            return
        said = self._words[news.room]
        words = said.get(news.prompt)
        if words is not None and (words.fence > news.fence or (words.fence == news.fence and words.mine)):
            return  # a late piece of an attempt that has lost its lease, or our own
        if words is None or words.fence < news.fence:
            words = said[news.prompt] = _Words(news.fence, mine=False)
            heard = [prompt_id for prompt_id, other in said.items() if not other.mine]
            for prompt_id in heard[:-MOST_HEARD]:
                del said[prompt_id]
        known = len(words.text)
        if news.start > known:
            self._ask(news.room)
        elif news.start + len(news.text) > known:
            words.text += news.text[known - news.start :]
            self.wake(news.room, changed=False)

    def _ask(self, chatroom_id: UUID) -> None:
        """Ask for all of a text of which a part did not come."""
        now = monotonic()
        if self._asked.get(chatroom_id, 0.0) < now:
            self._asked[chatroom_id] = now + ASK_SECONDS
            self._tell(Attend(self._process, [chatroom_id], wants=True))

    def _words_of(self, chatroom_id: UUID, prompt_id: UUID, fence: int) -> _Words | None:
        words = self._words.get(chatroom_id, {}).get(prompt_id)
        return words if words is not None and words.fence == fence else None

    def _drop(self, chatroom_id: UUID, prompt_id: UUID) -> None:
        del self._words[chatroom_id][prompt_id]
        if not self._words[chatroom_id]:
            del self._words[chatroom_id]

    def _forget(self, chatroom_id: UUID) -> None:
        """The last listener to a room has gone."""
        del self._ears[chatroom_id]
        self._asked.pop(chatroom_id, None)
        self._lingering[chatroom_id] = monotonic() + LINGER_SECONDS
        for prompt_id in [prompt_id for prompt_id, words in self._words.get(chatroom_id, {}).items() if not words.mine]:
            self._drop(chatroom_id, prompt_id)

    def _tell(self, news: News) -> None:
        self._send(wire.encode(news))
