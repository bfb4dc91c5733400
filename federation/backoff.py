"""Pauses between attempts: longer each time, never in step with others (decorrelated by full jitter)."""

from __future__ import annotations

import asyncio
import random


class Backoff:
    """Pauses that double from ``first_s`` to ``longest_s``, each shortened at random, until `reset`."""

    def __init__(self, first_s: float = 0.1, longest_s: float = 30.0) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._next_s = first_s

    async def pause(self) -> None:
        """Wait before the next attempt."""
        pause_s = self._next_s * random.uniform(0.5, 1.0)  # noqa: S311 — spreads load, protects nothing
        self._next_s = min(self._next_s * 2, self._longest_s)
        await asyncio.sleep(pause_s)

    def reset(self) -> None:
        """An attempt succeeded."""
        self._next_s = self._first_s
