"""Waiting requests of one model become one run of it; no model waits for another.

Each model has a lane with a bounded queue. Requests that arrive in one turn of the event loop are computed together in the next; a run
that takes longer than `INLINE_S` leaves the loop for a thread, and what arrives meanwhile is the next batch. A lane has one run at a time,
so a model that takes long can fill its own queue only. Nothing here reads a request or writes an answer.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable
from concurrent.futures import Executor
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.inference.metrics import Metrics
from gateway.inference.refusal import RefusalError
from gateway.inference.shelf import Served

INLINE_S = 1e-3
"""A run that takes longer is none of the event loop's: below, handing it to a thread costs more than it gains."""


class Run(NamedTuple):
    """What a model made of the windows of one request."""

    outputs: dict[str, NDArray[Any]]
    unusual: NDArray[np.bool_] | None
    """[features] which fields hold a value out of their range in training; None: no field does."""


class _Ticket:
    """One request that waits for its model."""

    __slots__ = ("arrived", "deadline", "future", "served", "windows")

    def __init__(self, served: Served, windows: NDArray[np.float32], arrived: float, timeout_s: float) -> None:
        self.served = served
        self.windows = windows
        self.arrived = arrived
        self.deadline = arrived + timeout_s
        self.future: asyncio.Future[Run] = asyncio.get_running_loop().create_future()


class Lanes:
    """One lane for each model. `max_queue`, `max_batch` and `sigma` may be changed at any time."""

    def __init__(self, pool: Executor, metrics: Metrics) -> None:
        self.pool = pool
        self.metrics = metrics
        self.max_queue = self.max_batch = 1
        self.sigma = math.inf
        self._lanes: dict[str, Lane] = {}

    def run(self, served: Served, windows: NDArray[np.float32], timeout_s: float) -> Awaitable[Run]:
        """The outputs for ``windows`` (n, rows, features).

        Raises RefusalError FF-INFER-014 when the model's queue is full, -015 when its turn did not come in time, and -007 or -016 when
        the windows, or what the model made of them, hold what is no finite number. One who is cancelled is not computed.
        """
        name = served.evidence.model
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(self, name)
        return lane.run(served, windows, timeout_s)

    def waiting(self) -> dict[str, int]:
        """Length of each model's queue."""
        return {name: len(lane.queue) for name, lane in list(self._lanes.items())}


class Lane:
    """The queue of one model."""

    def __init__(self, lanes: Lanes, name: str) -> None:
        self.lanes = lanes
        self.name = name
        self.queue: deque[_Ticket] = deque()
        self._scheduled = False
        """The next turn of the event loop takes a batch."""
        self._busy = False
        """A batch is in a thread; the next one is taken when it is done."""

    async def run(self, served: Served, windows: NDArray[np.float32], timeout_s: float) -> Run:
        """See `Lanes.run`."""
        queue = self.queue
        if len(queue) >= self.lanes.max_queue:
            raise self._full(served)
        ticket = _Ticket(served, windows, time.perf_counter(), timeout_s)
        queue.append(ticket)
        if self._busy:
            return await self._patiently(ticket, timeout_s)
        if len(queue) >= min(self.lanes.max_batch, self.lanes.max_queue):
            self._take()  # a full batch: nobody is refused for having come in the same turn as many others
        elif not self._scheduled:
            self._scheduled = True
            ticket.future.get_loop().call_soon(self._take)
        return await ticket.future

    async def _patiently(self, ticket: _Ticket, timeout_s: float) -> Run:
        try:
            async with asyncio.timeout(timeout_s):
                return await ticket.future
        except TimeoutError:
            raise _late(self.name, timeout_s) from None

    def _take(self) -> None:
        """Compute the next batch, here or in a thread."""
        self._scheduled = False
        if self._busy:
            return
        batch, windows = self._batch()
        if not batch:
            return
        served = batch[0].served
        started = time.perf_counter()
        if windows * served.window_s <= INLINE_S:
            try:
                runs = _compute(served, [ticket.windows for ticket in batch], self.lanes.sigma)
            except Exception as error:
                self._failed(batch, error)
            else:
                self._done(batch, windows, runs, started, time.perf_counter())
            self._next()
            return
        self._busy = True
        data = [ticket.windows for ticket in batch]
        running = asyncio.get_running_loop().run_in_executor(self.lanes.pool, _compute, served, data, self.lanes.sigma)
        running.add_done_callback(lambda done: self._back(batch, windows, started, done))

    def _back(
        self, batch: list[_Ticket], windows: int, started: float, done: asyncio.Future[list[Run | RefusalError]]
    ) -> None:
        """A thread has computed a batch."""
        self._busy = False
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if error is not None:
            self._failed(batch, error)
        else:
            self._done(batch, windows, done.result(), started, time.perf_counter())
        self._next()

    def _next(self) -> None:
        if self.queue and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._take)

    def _batch(self) -> tuple[list[_Ticket], int]:
        """The next requests that fit together, and how many windows they have. Those nobody waits for any more fall out."""
        batch: list[_Ticket] = []
        windows = 0
        queue, limit, now = self.queue, self.lanes.max_batch, time.perf_counter()
        while queue:
            ticket = queue[0]
            more = windows + len(ticket.windows)
            if ticket.future.done():
                queue.popleft()
                continue
            if now > ticket.deadline:
                ticket.future.set_exception(_late(self.name, ticket.deadline - ticket.arrived))
                queue.popleft()
                continue
            if batch and (more > limit or ticket.served is not batch[0].served):
                break
            batch.append(queue.popleft())
            windows = more
        return batch, windows

    def _done(
        self, batch: list[_Ticket], windows: int, runs: list[Run | RefusalError], started: float, ended: float
    ) -> None:
        self.lanes.metrics.ran(self.name, windows, ended - started, [started - ticket.arrived for ticket in batch])
        for ticket, run in zip(batch, runs, strict=True):
            if ticket.future.done():
                continue
            if isinstance(run, RefusalError):
                ticket.future.set_exception(run)
            else:
                ticket.future.set_result(run)

    def _failed(self, batch: list[_Ticket], error: BaseException) -> None:
        for ticket in batch:
            if not ticket.future.done():
                ticket.future.set_exception(error)

    def _full(self, served: Served) -> RefusalError:
        wait_s = sum(len(ticket.windows) for ticket in self.queue) * served.window_s
        return RefusalError(
            429,
            "FF-INFER-014",
            f"{len(self.queue)} requests wait for model {self.name} already",
            hint="ask again after Retry-After seconds, or raise [inference] max_queue or max_batch",
            retry_after_s=math.ceil(wait_s) or 1,
        )


def _compute(served: Served, parts: list[NDArray[np.float32]], sigma: float) -> list[Run | RefusalError]:
    """Run the windows of several requests as one, and part the outputs again."""
    windows = parts[0] if len(parts) == 1 else np.concatenate(parts)
    low, high = served.limits(sigma)
    usual = (windows >= low) & (windows <= high)
    all_usual = bool(usual.all())
    before = time.thread_time()
    outputs = served.run(windows)
    served.ran(len(windows), time.thread_time() - before)
    finite = all(np.isfinite(array).all() for array in outputs.values())
    if len(parts) == 1:
        found = [(slice(None), outputs)]
    else:
        borders = pairwise(accumulate(map(len, parts), initial=0))
        found = [
            (slice(start, end), {name: array[start:end] for name, array in outputs.items()}) for start, end in borders
        ]
    if all_usual and finite:
        return [Run(part, None) for _, part in found]
    return [_flagged(served, part, windows[place], usual[place]) for place, part in found]


def _flagged(
    served: Served, outputs: dict[str, NDArray[Any]], windows: NDArray[np.float32], usual: NDArray[np.bool_]
) -> Run | RefusalError:
    """One request of a batch in which something is unusual."""
    about, fields = served.evidence, served.evidence.data_schema.fields
    if not np.isfinite(windows).all():
        window, row, field = np.argwhere(~np.isfinite(windows))[0].tolist()
        value = windows[window, row, field]
        return RefusalError(
            400,
            "FF-INFER-007",
            f'window {window}, row {row}, field "{fields[field].name}": {value} is no finite number',
            hint="a missing value cannot be sent: leave the window out, or fill it in as the plant sees fit",
        )
    if not all(np.isfinite(array).all() for array in outputs.values()):
        return RefusalError(
            422,
            "FF-INFER-016",
            f"model {about.model} version {about.version} gives no finite number for these inputs",
            hint="look whether the inputs are in the model's units and in the range it was trained on",
        )
    outside: NDArray[np.bool_] = np.logical_not(usual.all(axis=(0, 1)))
    return Run(outputs, outside if outside.any() else None)


def _late(name: str, timeout_s: float) -> RefusalError:
    return RefusalError(
        503,
        "FF-INFER-015",
        f"the turn of this request to model {name} did not come within {timeout_s:g} s",
        hint="the model is asked for more than it can answer: ask for less, or for more windows in one request",
        retry_after_s=1,
    )
