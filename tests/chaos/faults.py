"""Faults, one after another from a seed: what is hit, how, and how often it has been."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import psutil

from tests.chaos.works import Daemon, Works

SLOW_BYTES_PER_S = 64_000.0
"""512 kbit/s."""


KILLS = ("kill coordinator", "kill gateway", "kill worker")
PAUSES = ("stop coordinator", "stop gateway", "stop worker")
LINES = ("cut line", "line down", "line silent", "line slow")


class Storm:
    """Injects faults of the given kinds into a works; ``injected`` counts those that hit something."""

    def __init__(self, works: Works, seed: int, kinds: tuple[str, ...]) -> None:
        self.works = works
        self.injected: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._turn: list[str] = []
        faults: dict[str, Callable[[], Awaitable[bool]]] = {
            "kill coordinator": lambda: self._kill(self.works.cloud),
            "kill gateway": lambda: self._kill(self._gateway()),
            "kill worker": self._kill_worker,
            "stop coordinator": lambda: self._stop(self.works.cloud),
            "stop gateway": lambda: self._stop(self._gateway()),
            "stop worker": self._stop_worker,
            "cut line": self._cut,
            "line down": lambda: self._line("down"),
            "line silent": lambda: self._line("silent"),
            "line slow": lambda: self._line("slow"),
        }
        self._faults = {kind: faults[kind] for kind in kinds}

    @property
    def total(self) -> int:
        """Faults injected so far."""
        return sum(self.injected.values())

    async def rage(self, faults: int, pause_s: tuple[float, float]) -> None:
        """Until there were so many faults: all kinds in turn but in random order, with pauses between them."""
        while self.total < faults:
            if not self._turn:
                self._turn = self._random.sample(list(self._faults), len(self._faults))
            kind = self._turn.pop()
            if await self._faults[kind]():
                self.injected[kind] += 1
            else:
                self._turn.insert(0, kind)  # there was nothing to hit
            await asyncio.sleep(self._random.uniform(*pause_s))

    def _gateway(self) -> Daemon:
        return self._random.choice(list(self.works.gateways.values()))

    async def _kill(self, daemon: Daemon) -> bool:
        return daemon.signal(signal.SIGKILL)

    async def _stop(self, daemon: Daemon) -> bool:
        seconds = self._random.uniform(0.5, 4)
        if not daemon.signal(signal.SIGSTOP):
            return False
        try:
            await asyncio.sleep(seconds)
        finally:
            daemon.signal(signal.SIGCONT)
        return True

    async def _kill_worker(self) -> bool:
        workers = self._gateway().workers()
        with suppress(psutil.NoSuchProcess):
            for worker in workers:
                worker.kill()
        return bool(workers)

    async def _stop_worker(self) -> bool:
        workers = self._gateway().workers()
        with suppress(psutil.NoSuchProcess):
            for worker in workers:
                worker.suspend()
            await asyncio.sleep(self._random.uniform(0.5, 3))
        with suppress(psutil.NoSuchProcess):
            for worker in workers:
                worker.resume()
        return bool(workers)

    async def _cut(self) -> bool:
        self._random.choice(list(self.works.lines.values())).cut()
        return True

    async def _line(self, how: str) -> bool:
        line = self._random.choice(list(self.works.lines.values()))
        seconds = 20.0 if self._random.random() < 0.2 else self._random.uniform(1, 5)
        match how:
            case "down":
                await line.down(seconds)
            case "silent":
                await line.silent(seconds)
            case _:
                await line.slow(SLOW_BYTES_PER_S, seconds)
        return True
