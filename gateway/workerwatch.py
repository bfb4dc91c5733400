"""The eye on a worker process at work: does it compute, and does it stay within its memory?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

import psutil

LOOK_S = 2.0
"""Seconds between two looks at a process that works on a call."""
BURST = 1.5
"""Times its memory limit a process may hold while it works on a call."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a process may do before it is replaced."""

    memory: int
    """Bytes; 0: none."""
    hang_s: float


class ReplaceError(Exception):
    """The process must go, for the reason given."""


class Watch:
    """Looks at a process while it works on one call: is it alive, and does it stay within its limits?"""

    def __init__(self, pid: int, limits: Limits) -> None:
        self._pid = pid
        self._limits = limits
        self._moved = time.monotonic()
        self._used = 0.0

    def heard(self) -> None:
        """It has said something."""
        self._moved = time.monotonic()

    def resident(self) -> int:
        """Bytes in memory; 0 where the process is gone."""
        try:
            return int(psutil.Process(self._pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return 0

    def too_large(self, allowance: float = 1.0) -> bool:
        """Whether it has grown beyond its limit, times ``allowance``."""
        return 0 < self._limits.memory * allowance < self.resident()

    async def run(self, tick: Callable[[], None]) -> NoReturn:
        """Tick for as long as the process computes. Raises ReplaceError where it does not, or has grown far beyond its limit."""
        while True:
            await asyncio.sleep(LOOK_S)
            with suppress(psutil.NoSuchProcess):  # whoever reads from it finds out
                used = sum(psutil.Process(self._pid).cpu_times()[:2])
                if used > self._used:
                    self._used, self._moved = used, time.monotonic()
                    tick()
            if time.monotonic() - self._moved > self._limits.hang_s:
                raise ReplaceError(f"killed: it did nothing for {self._limits.hang_s:g} s")
            if self.too_large(BURST):
                raise ReplaceError(f"killed: it grew to {self.resident() >> 20} MB, far above its limit")
