"""Batches of several sources that wait at the same time share one commit, and so one wait for the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from connectors.contract import Sample
from gateway.blocks import SampleBlock
from gateway.store.records import RawBatch
from gateway.store.store import Store


@dataclass
class _Waiting:
    batch: RawBatch
    block: SampleBlock | None = None
    error: Exception | None = None


class Together:
    """Appends to the raw layer in the one thread of ``writer``. Each source waits for its batch, so no more wait than there are sources."""

    def __init__(self, store: Store, writer: Executor) -> None:
        self._store = store
        self._writer = writer
        self._waiting: list[_Waiting] = []
        self._turn = asyncio.Lock()

    async def append(self, source: str, samples: Sequence[Sample], cursor: str | None) -> SampleBlock:
        """Keep a batch; on disk when this returns. Gives it as columns. Raises StoreError, for all that were to share the commit."""
        mine = _Waiting(RawBatch(source, samples, cursor))
        self._waiting.append(mine)
        async with self._turn:
            if mine.block is None and mine.error is None:  # nobody before has taken it along
                await self._write()
        if mine.error is not None:
            raise mine.error
        assert mine.block is not None  # noqa: S101 - written, or else an error
        return mine.block

    async def _write(self) -> None:
        taken, self._waiting = self._waiting, []
        writing = asyncio.get_running_loop().run_in_executor(self._writer, self._store_all, taken)
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])  # the others learn how it ended
            raise

    def _store_all(self, taken: Sequence[_Waiting]) -> None:
        try:
            blocks = [SampleBlock.of(each.batch.samples) for each in taken]
            batches = [each.batch._replace(samples=block) for each, block in zip(taken, blocks, strict=True)]
            self._store.append_raw_many(batches)
        except Exception as error:
            for each in taken:
                each.error = error
        else:
            for each, block in zip(taken, blocks, strict=True):
                each.block = block
