"""The inbox between server and gateway."""

from __future__ import annotations

import asyncio

import pytest

from connectors.contract import Quality, Sample
from connectors.opcua.inbox import Inbox


def samples(count: int) -> list[Sample]:
    return [Sample("t", float(i), Quality.GOOD, i, i) for i in range(count)]


async def test_the_writer_waits_while_it_is_full() -> None:
    inbox = Inbox(3)
    inbox.put(samples(2))
    await inbox.room()
    inbox.put(samples(2))
    waiting = asyncio.create_task(inbox.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert len(await inbox.take()) == 4
    await waiting


async def test_what_came_before_the_loss_is_read_first() -> None:
    inbox = Inbox(3)
    inbox.put(samples(2))
    inbox.lose(ConnectionError("gone"))
    assert len(await inbox.take()) == 2
    with pytest.raises(ConnectionError, match="gone"):
        await inbox.take()


async def test_a_loss_wakes_the_reader() -> None:
    inbox = Inbox(3)
    reading = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    inbox.lose(ConnectionError("gone"))
    with pytest.raises(ConnectionError, match="gone"):
        await reading


async def test_a_sign_of_life_is_no_batch_and_silence_is_noticed() -> None:
    inbox = Inbox(3)
    inbox.silence_s = 0.05
    reading = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    inbox.put([])
    await asyncio.sleep(0)
    assert not reading.done()
    with pytest.raises(TimeoutError):
        await reading
