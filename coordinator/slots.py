"""How many tasks run at a time; the number may change while they run."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Slots:
    """``async with`` takes one, first come first served. Set `most` by `apply`."""

    def __init__(self, most: int) -> None:
        self._most, self._taken = most, 0
        self._changed = asyncio.Condition()

    async def apply(self, most: int) -> None:
        """At most so many from now on; what runs beyond that goes on to its end."""
        async with self._changed:
            self._most = most
            self._changed.notify_all()

    async def __aenter__(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._taken < self._most)
            self._taken += 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._taken -= 1
        async with self._changed:
            self._changed.notify_all()
