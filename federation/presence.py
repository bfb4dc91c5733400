"""Whether the other side can be reached: an event that can be waited for both ways."""

from __future__ import annotations

import asyncio
from typing import Literal


class Presence(asyncio.Event):
    """Set while the other side can be reached."""

    def __init__(self) -> None:
        super().__init__()
        self._gone = asyncio.Event()
        self._gone.set()

    def set(self) -> None:
        """It can be reached."""
        super().set()
        self._gone.clear()

    def clear(self) -> None:
        """It cannot be reached any more."""
        super().clear()
        self._gone.set()

    async def missed(self, seconds: float) -> Literal[True]:
        """Wait until it could not be reached for ``seconds`` on end."""
        while True:
            await self._gone.wait()
            try:
                await asyncio.wait_for(self.wait(), seconds)
            except TimeoutError:
                return True
