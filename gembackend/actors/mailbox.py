"""A bounded, typed inbox for one reader on one event loop."""

import asyncio
from collections import deque
from typing import Generic, TypeVar

M = TypeVar("M")
Q = TypeVar("Q")
R = TypeVar("R")


class MailboxFull(Exception):
    """The mailbox holds as many messages as it may; the message was not taken."""


class MailboxClosed(Exception):
    """The actor behind the mailbox is stopping or has stopped; the message was not taken."""


class Mailbox(Generic[M]):
    """Messages in the order in which they were told, never more than `capacity` of them.

    Any number of tasks tell; one task drains. After `close` nothing more is taken in, and
    `drain` hands out what is left and then an empty list, which ends the reader's loop.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._messages: deque[M] = deque()
        self._filled = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def closed(self) -> bool:
        """Whether new messages are refused for good."""
        return self._closed

    def tell(self, message: M) -> None:
        """Leave a message and go on; raises MailboxFull or MailboxClosed."""
        if self._closed:
            raise MailboxClosed
        if len(self._messages) >= self.capacity:
            raise MailboxFull
        self._messages.append(message)
        self._filled.set()

    async def drain(self, most: int) -> list[M]:
        """Wait for a message and take up to `most` of those that are there; empty means closed."""
        while not self._messages and not self._closed:
            self._filled.clear()
            await self._filled.wait()
        return [self._messages.popleft() for _ in range(min(most, len(self._messages)))]

    def close(self) -> None:
        """Take nothing more in; harmless when closed already."""
        self._closed = True
        self._filled.set()

    def abandon(self) -> None:
        """Close and drop what is left, telling every asker that no answer will come."""
        self.close()
        while self._messages:
            message = self._messages.popleft()
            if isinstance(message, Asked):
                message.fail(MailboxClosed())


class Asked(Generic[Q, R]):
    """A question in a mailbox, with the place where its answer goes.

    Answering or failing twice, or after the asker has gone, is harmless.
    """

    __slots__ = ("_reply", "question")

    def __init__(self, question: Q) -> None:
        self.question = question
        self._reply: asyncio.Future[R] = asyncio.get_running_loop().create_future()

    @property
    def gone(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._reply.done()

    def answer(self, reply: R) -> None:
        """Give the asker its reply."""
        if not self._reply.done():
            self._reply.set_result(reply)

    def fail(self, error: BaseException) -> None:
        """Raise this at the asker."""
        if not self._reply.done():
            self._reply.set_exception(error)

    async def reply(self) -> R:
        """What the actor answers; raises what it failed with."""
        return await self._reply


async def ask(mailbox: Mailbox[Asked[Q, R]], question: Q) -> R:
    """Tell a question and await its reply; raises MailboxFull, MailboxClosed or what the actor failed with."""
    asked: Asked[Q, R] = Asked(question)
    mailbox.tell(asked)
    return await asked.reply()
