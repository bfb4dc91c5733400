"""The latest stored window of an end, and what is known of its quality."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from gateway.inference.refusal import RefusalError
from gateway.inference.shelf import Served
from models.dataset import Rows
from models.schema import Schema

Latest = Callable[[str, int], Rows]
"""``latest(end, n)``: the newest n feature rows of an end, oldest first."""

AtHand = Callable[[str, int], Rows | None]
"""The same where it needs no reading, else None."""


@dataclass(frozen=True, slots=True)
class Window:
    """What a prediction is made from."""

    x: NDArray[np.float32]
    """Shape (1, rows, features)."""
    row_time: int
    """Time of its newest row, ns since the epoch."""
    age_s: float
    """How old that row is."""
    stale: bool
    """Older than it should be, and answered nevertheless."""
    skipped: int
    """Rows left out because a value is missing, among those as new as the window's oldest row."""
    missing: tuple[str, ...]
    """Which fields were missing in them."""

    def describe(self, end: str) -> dict[str, object]:
        """As an answer says it."""
        moment = datetime.fromtimestamp(self.row_time // 1_000_000 / 1e3, UTC).isoformat(timespec="milliseconds")
        found: dict[str, object] = {
            "end": end,
            "row_time": moment.replace("+00:00", "Z"),
            "age_s": round(self.age_s, 3),
        }
        if self.stale:
            found["stale"] = True
        if self.skipped:
            found |= {"skipped_rows": self.skipped, "missing": self.missing}
        return found


class LatestWindows:
    """Windows of this gateway's ends. `stale_after_s` and `flag_stale` may be changed at any time."""

    def __init__(self, pool: Executor, ends: Mapping[str, Schema], latest: Latest, at_hand: AtHand) -> None:
        self.ends = ends
        self._at_hand = at_hand
        self.stale_after_s: float | None = None
        self.flag_stale = False
        self._rows = _SharedReads(pool, latest)

    async def window(self, served: Served, end: str, max_age_s: float | None) -> Window:
        """The newest rows of the present run of ``end``: rows of the run before, and rows with a missing value, never enter, as in
        training.

        Raises RefusalError FF-INFER-008 for an end that is not here or does not fit the model, -009 for too few rows, and -010 for a
        window older than ``max_age_s``, or than `stale_after_s` where that is not to be flagged only.
        """
        self._fits(served, end)
        n = 2 * served.rows
        rows = self._at_hand(end, n) or await self._rows.read(end, n)
        complete = ~np.isnan(rows.x).any(axis=1) & ~np.isnan(rows.group)
        index = np.flatnonzero(complete)
        if len(index):
            index = index[rows.group[index] == rows.group[index[-1]]][-served.rows :]
        if len(index) < served.rows:
            raise RefusalError(
                409,
                "FF-INFER-009",
                f'end "{end}" has {len(index)} usable rows in its present run, model {served.evidence.model} needs {served.rows}',
                hint="wait until the machine has delivered more, or look at /status: does its source read?",
            )
        row_time = int(rows.time[index[-1]])
        age_s = time.time() - row_time / 1e9
        stale = self.stale_after_s is not None and age_s > self.stale_after_s
        self._young_enough(end, age_s, max_age_s)
        left_out = np.flatnonzero(~complete[index[0] :]) + index[0]
        missing = self._missing(served, rows.x[left_out]) if len(left_out) else ()
        x = rows.x[index].astype(np.float32)[None]
        return Window(x, row_time, age_s, stale, len(left_out), missing)

    @staticmethod
    def _missing(served: Served, x: NDArray[np.float64]) -> tuple[str, ...]:
        columns = zip(served.evidence.data_schema.fields, np.isnan(x).T, strict=True)
        return tuple(field.name for field, lacks in columns if lacks.any())

    def _fits(self, served: Served, end: str) -> None:
        schema = self.ends.get(end)
        if schema is None:
            known = ", ".join(sorted(self.ends))
            raise RefusalError(404, "FF-INFER-008", f'no end "{end}" at this gateway; it has {known}')
        if served.fits.get(end) is schema:
            return
        difference = served.evidence.data_schema.difference(schema)
        if difference is not None:
            raise RefusalError(
                409,
                "FF-INFER-008",
                f'end "{end}" does not fit model {served.evidence.model}: {difference}',
                hint="ask the model of the end's own cluster; GET /v2/models lists them",
            )
        served.fits[end] = schema

    def _young_enough(self, end: str, age_s: float, max_age_s: float | None) -> None:
        limit_s = max_age_s or (None if self.flag_stale else self.stale_after_s)
        if limit_s is not None and age_s > limit_s:
            raise RefusalError(
                409,
                "FF-INFER-010",
                f'the newest row of end "{end}" is {age_s:.1f} s old, at most {limit_s:g} s are allowed',
                hint="look at /status: does its source read? The limit is max_age_s of the request, or stale_after_s of the gateway",
            )


class _SharedReads:
    """Reads the disk in a thread, once for all who ask for the same at the same time. A read starts after everybody it answers has asked,
    so nobody is given rows older than his question."""

    def __init__(self, pool: Executor, latest: Latest) -> None:
        self._pool = pool
        self._latest = latest
        self._next: dict[tuple[str, int], asyncio.Future[Rows]] = {}
        self._reading: set[tuple[str, int]] = set()

    async def read(self, end: str, n: int) -> Rows:
        """The newest ``n`` rows of ``end``."""
        key = end, n
        future = self._next.get(key)
        if future is None:
            loop = asyncio.get_running_loop()
            future = self._next[key] = loop.create_future()
            if key not in self._reading:
                loop.call_soon(self._start, key)
        return await asyncio.shield(future)

    def _start(self, key: tuple[str, int]) -> None:
        future = self._next.pop(key)
        self._reading.add(key)
        reading = asyncio.get_running_loop().run_in_executor(self._pool, self._latest, *key)
        reading.add_done_callback(lambda done: self._deliver(key, future, done))

    def _deliver(self, key: tuple[str, int], future: asyncio.Future[Rows], done: asyncio.Future[Rows]) -> None:
        self._reading.discard(key)
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(done.result())
        if key in self._next:
            self._start(key)
