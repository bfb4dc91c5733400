"""Changes between the server's deliveries and the gateway's reads: bounded, and never silent about a loss. No protocol here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from connectors.contract import Sample


class Inbox:
    """One writer, one reader, for the time of one connection.

    Once ``limit`` samples wait, `room` holds the writer back until the reader has taken them.
    """

    def __init__(self, limit: int) -> None:
        self.silence_s = 60.0
        """How long nothing may come, not even a sign of life."""
        self._limit = limit
        self._samples: list[Sample] = []
        self._lost: Exception | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def room(self) -> None:
        """Wait until there is room: the back-pressure."""
        await self._room.wait()

    def put(self, samples: Iterable[Sample]) -> None:
        """Add what came; nothing is a sign of life too."""
        self._samples.extend(samples)
        if len(self._samples) >= self._limit:
            self._room.clear()
        self._news.set()

    def lose(self, error: Exception) -> None:
        """The connection is gone: what came before can still be taken, then ``error`` is raised."""
        self._lost = error
        self._news.set()

    async def take(self) -> list[Sample]:
        """All samples, at least one. Raises the error of `lose`, or TimeoutError after ``silence_s`` without news."""
        while not self._samples:
            if self._lost is not None:
                raise self._lost
            self._news.clear()
            async with asyncio.timeout(self.silence_s):
                await self._news.wait()
        samples, self._samples = self._samples, []
        self._room.set()
        return samples
