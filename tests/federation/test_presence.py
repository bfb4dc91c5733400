"""An event that can be waited for both ways."""

from __future__ import annotations

import asyncio

from federation.presence import Presence


async def test_an_absence_counts_from_its_last_beginning() -> None:
    presence, missed = Presence(), asyncio.Event()

    async def watch() -> None:
        await presence.missed(0.2)
        missed.set()

    presence.set()
    watching = asyncio.create_task(watch())
    for _ in range(3):  # short breaks are no absence
        presence.clear()
        await asyncio.sleep(0.05)
        presence.set()
        await asyncio.sleep(0.05)
    assert not missed.is_set()
    start = asyncio.get_running_loop().time()
    presence.clear()
    await watching
    assert asyncio.get_running_loop().time() - start >= 0.19


async def test_what_was_never_there_is_missed_at_once() -> None:
    assert await asyncio.wait_for(Presence().missed(0.0), 1)
