"""Answers on their way into the results layer, without making anybody wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from numpy.typing import NDArray

from gateway.store import Result

log = structlog.get_logger()

QUEUE = 10_000
BATCH = 1_000
LINGER_S = 0.1
"""Others may come while the first waits: a transaction for each answer would cost more than the answer."""


class Prediction(NamedTuple):
    """One answer. Times are nanoseconds since the epoch, UTC."""

    time: int
    model: str
    version: str
    end: str | None
    """Whose window it was; None when the request brought the data."""
    inputs: str
    """SHA-256 of the windows."""
    outputs: Mapping[str, NDArray[Any]]
    about: Mapping[str, object]
    """What is kept beside the outputs: the client's name, time to the answer, time of the newest row, flags."""

    def result(self) -> Result:
        """As the results layer keeps it."""
        outputs = {**self.outputs, **self.about}
        return Result(self.time, self.model, self.version, self.end or "", self.inputs, outputs)


class Recorder:
    """Writes results in batches in a thread. When the disk cannot keep up, the newest are dropped, counted and logged once."""

    def __init__(self, write: Callable[[Sequence[Result]], None]) -> None:
        self._write = write
        self._queue: asyncio.Queue[Prediction | None] = asyncio.Queue(QUEUE)
        self._falling_behind = False
        self.written = 0
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Answers that are not written yet."""
        return self._queue.qsize()

    def put(self, prediction: Prediction) -> None:
        """Hand over one answer; returns at once."""
        try:
            self._queue.put_nowait(prediction)
        except asyncio.QueueFull:
            self.dropped += 1
            if not self._falling_behind:
                log.warning("results are dropped: the results layer cannot keep up", waiting=QUEUE)
            self._falling_behind = True

    async def run(self) -> None:
        """Write until `close`."""
        closing = False
        while not closing:
            batch = [await self._queue.get()]
            if self._queue.qsize() < BATCH:
                await asyncio.sleep(LINGER_S)
            while len(batch) < BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            predictions = [prediction for prediction in batch if prediction is not None]
            closing = len(predictions) < len(batch)
            await self._keep(predictions)

    async def close(self) -> None:
        """Let `run` end once everything handed over is written."""
        await self._queue.put(None)

    async def _keep(self, predictions: Sequence[Prediction]) -> None:
        try:
            await asyncio.to_thread(lambda: self._write([prediction.result() for prediction in predictions]))
        except Exception as error:
            self.dropped += len(predictions)
            log.error("results not written", count=len(predictions), error=str(error))
        else:
            self.written += len(predictions)
            self._falling_behind = False
