"""The mailbox: order, bounds, closing, asking."""

import asyncio

import pytest

from gembackend.actors import Asked, Mailbox, MailboxClosed, MailboxFull, ask


async def test_messages_come_out_in_the_order_they_went_in() -> None:
    mailbox: Mailbox[int] = Mailbox(10)
    for number in range(5):
        mailbox.tell(number)
    assert await mailbox.drain(3) == [0, 1, 2]
    assert await mailbox.drain(3) == [3, 4]


async def test_a_full_mailbox_refuses_and_keeps_what_it_has() -> None:
    mailbox: Mailbox[int] = Mailbox(2)
    mailbox.tell(1)
    mailbox.tell(2)
    with pytest.raises(MailboxFull):
        mailbox.tell(3)
    assert await mailbox.drain(10) == [1, 2]


async def test_drain_waits_for_a_message() -> None:
    mailbox: Mailbox[str] = Mailbox(2)
    waiting = asyncio.create_task(mailbox.drain(1))
    await asyncio.sleep(0)
    assert not waiting.done()
    mailbox.tell("here")
    assert await waiting == ["here"]


async def test_a_closed_mailbox_hands_out_what_is_left_and_then_nothing() -> None:
    mailbox: Mailbox[int] = Mailbox(2)
    mailbox.tell(1)
    mailbox.close()
    mailbox.close()
    with pytest.raises(MailboxClosed):
        mailbox.tell(2)
    assert await mailbox.drain(5) == [1]
    assert await mailbox.drain(5) == []


async def test_closing_wakes_a_waiting_drain() -> None:
    mailbox: Mailbox[int] = Mailbox(2)
    waiting = asyncio.create_task(mailbox.drain(1))
    await asyncio.sleep(0)
    mailbox.close()
    assert await waiting == []


async def test_an_asker_gets_the_answer_or_the_failure() -> None:
    mailbox: Mailbox[Asked[int, str]] = Mailbox(2)
    first = asyncio.create_task(ask(mailbox, 1))
    second = asyncio.create_task(ask(mailbox, 2))
    await asyncio.sleep(0)
    one, two = await mailbox.drain(2)
    one.answer("one")
    two.fail(KeyError("two"))
    assert await first == "one"
    with pytest.raises(KeyError):
        await second


async def test_answering_an_asker_who_has_gone_is_harmless() -> None:
    mailbox: Mailbox[Asked[int, str]] = Mailbox(1)
    gone = asyncio.create_task(ask(mailbox, 1))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    [asked] = await mailbox.drain(1)
    assert asked.gone
    asked.answer("nobody hears")
    asked.fail(KeyError())


async def test_abandoning_tells_every_asker() -> None:
    mailbox: Mailbox[Asked[int, str]] = Mailbox(1)
    asker = asyncio.create_task(ask(mailbox, 1))
    await asyncio.sleep(0)
    mailbox.abandon()
    with pytest.raises(MailboxClosed):
        await asker


async def test_many_tellers_lose_and_repeat_nothing() -> None:
    mailbox: Mailbox[tuple[int, int]] = Mailbox(10_000)

    async def teller(who: int) -> None:
        for number in range(200):
            mailbox.tell((who, number))
            if number % 7 == who % 7:
                await asyncio.sleep(0)

    async def reader() -> list[tuple[int, int]]:
        taken: list[tuple[int, int]] = []
        while batch := await mailbox.drain(16):
            taken += batch
        return taken

    reading = asyncio.create_task(reader())
    await asyncio.gather(*(teller(who) for who in range(40)))
    mailbox.close()
    taken = await reading
    assert len(taken) == len(set(taken)) == 40 * 200
    for who in range(40):
        assert [number for whose, number in taken if whose == who] == list(range(200))
