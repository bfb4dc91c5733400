"""Answers on their way into the results layer, without making anybody wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from gateway.store import Result

log = structlog.get_logger()

QUEUE = 10_000
LINGER_S = 0.5
"""Others may come while the first waits: a transaction for each answer would cost more than the answer. So much a kill -9 can lose."""


class Recorder:
    """Writes results in batches in a thread. When the disk cannot keep up, the newest are dropped, counted and logged once."""

    def __init__(self, write: Callable[[Sequence[Result]], None]) -> None:
        self._write = write
        self._waiting: list[Result] = []
        self._some = asyncio.Event()
        self._closing = asyncio.Event()
        self._falling_behind = False
        self.written = 0
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Answers that no thread writes yet, `QUEUE` at most."""
        return len(self._waiting)

    def put(self, result: Result) -> None:
        """Hand over one answer; returns at once."""
        if len(self._waiting) < QUEUE:
            self._waiting.append(result)
            self._some.set()
            return
        self.dropped += 1
        if not self._falling_behind:
            log.warning("results are dropped: the results layer cannot keep up", waiting=QUEUE)
        self._falling_behind = True

    async def run(self) -> None:
        """Write until `close`."""
        while not self._closing.is_set() or self._waiting:
            await self._some.wait()
            await self._linger()
            results, self._waiting = self._waiting, []
            self._some.clear()
            if results:
                await self._keep(results)

    async def close(self) -> None:
        """Let `run` end once everything handed over is written."""
        self._closing.set()
        self._some.set()

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(LINGER_S):
                await self._closing.wait()
        except TimeoutError:
            return

    async def _keep(self, results: Sequence[Result]) -> None:
        try:
            await asyncio.to_thread(self._write, results)
        except Exception as error:
            self.dropped += len(results)
            log.error("results not written", count=len(results), error=str(error))
        else:
            self.written += len(results)
            self._falling_behind = False
