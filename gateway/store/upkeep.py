"""Keeps the store within its bounds: merges small blocks, drops what is beyond bytes or age, gives freed pages back to the file system.

It works whenever enough was written, and when the oldest block reaches its age; in short transactions with pauses at least as long as
they were, so that appending hardly waits. What is dropped is counted for each source, end and model (`Store.amounts`) and logged once,
when it begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog

from gateway.config.store import DAY_S, GB, Bounds, StoreOptions
from gateway.errors import StoreError
from gateway.store import tally
from gateway.store.raw import WINDOW
from gateway.store.store import Store
from gateway.store.tally import Amounts, LayerName

log = structlog.get_logger(__name__)

_BLOCKS = 64  # dropped in one transaction
_RESULTS = 1000
_PAGES = 256  # given back in one transaction
_SPARE = 0.1  # of the file may be free pages, which the next blocks take; only what is beyond is given back
_ENOUGH = 0.8  # of its bound: a layer below has room again, and dropping would begin anew
_WRITES = 200  # transactions after which a look is worth it
_LOOK_S = 60.0  # at most between two looks, where the disk is short: others may fill or empty it
_LONGEST_S = 3600.0
_FOREVER = 2**63 - 1

R = TypeVar("R")


class Upkeep:
    """Owner of a store's bounds. ``ends``: those of the configuration; the features of others keep nothing in the raw layer."""

    def __init__(
        self,
        store: Store,
        options: StoreOptions,
        ends: Sequence[str],
        *,
        now: Callable[[], int] = time.time_ns,
        free: Callable[[], int] | None = None,
    ) -> None:
        self._store = store
        self._options = options
        self._ends = tuple(ends)
        self._now = now
        self._free = free or (lambda: shutil.disk_usage(store.file.path.parent).free)
        self._writes = 0
        self._told: set[LayerName] = set()
        self._ceiling: dict[LayerName, int] = {}  # what each layer held when the disk became short
        self._merged: int | None = None  # windows below this one are merged
        self._closing = threading.Event()
        self._due: Callable[[], object] = lambda: None
        self.merges = 0
        """Blocks there are fewer of through merging."""
        self.seconds = 0.0
        """Spent on upkeep so far."""
        store.file.wrote = self._wrote

    def apply(self, options: StoreOptions, ends: Sequence[str]) -> None:
        """Other bounds from now on. May be called from any thread."""
        self._options, self._ends = options, tuple(ends)
        self._told.clear()
        self._due()

    async def run(self) -> None:
        """Tend the store whenever there is something to do, until cancelled."""
        loop = asyncio.get_running_loop()
        due = asyncio.Event()
        self._due = lambda: loop.call_soon_threadsafe(due.set)
        self._closing.clear()
        try:
            while True:
                due.clear()
                wait = await asyncio.to_thread(self._tended)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(due.wait(), wait)
        finally:
            self._due = lambda: None
            self._closing.set()

    def tend(self) -> float:
        """Do everything that is to be done now. Gives in how many seconds to look again if nothing is written. Raises StoreError."""
        began = time.monotonic()
        self._merge()
        waits = [self._raw(), self._features(), self._results()]
        self._give_back()
        self.seconds += time.monotonic() - began
        return max(1.0, min(waits))

    def _tended(self) -> float:
        try:
            return self.tend()
        except StoreError as error:  # a full or read-only disk, say: the next look may find it better
            log.warning("upkeep of the store failed", code=error.code, problem=error.message, hint=error.hint)
            return _LOOK_S

    def _wrote(self) -> None:
        self._writes += 1
        if self._writes >= _WRITES or self._store.full is not None:
            self._writes = 0
            self._due()

    def _merge(self) -> None:
        done = self._store.last_raw() // WINDOW  # windows below this one are complete
        if self._merged is None:
            self._merged = self._store.file.read(tally.merged)
        for window in range(max(self._merged, (self._store.raw_layer.first() or 0) // WINDOW), done):
            fewer = self._paced(lambda window=window: self._store.raw_layer.merge(window))  # type: ignore[misc]
            self.merges += fewer
        if done > self._merged:
            self._merged = done
            self._store.file.write(lambda db: tally.set_merged(db, done))

    def _raw(self) -> float:
        options = self._options.raw
        limit, short = self._bound("raw", options)
        prepared = self._store.feature_layer.prepared(self._ends)
        prepared = _FOREVER if prepared is None else prepared
        upto = {"drop_oldest": _FOREVER, "keep_unprepared": prepared, "stop": 0}[options.when_full]
        before = self._before(options)
        aged = _FOREVER if options.when_full == "drop_oldest" else prepared
        self._drop(
            "raw",
            lambda need: self._store.raw_layer.drop(need, before, upto if need else aged, prepared, _BLOCKS),
            limit,
        )
        held = self._held("raw")
        full = options.when_full != "drop_oldest" and held >= limit
        why = f"the raw layer holds {held / GB:.3g} GB of {limit / GB:.3g} GB"
        self._refuse(why if full else None, options.when_full)
        return self._wait(self._store.raw_layer.oldest(), options, short)

    def _features(self) -> float:
        options = self._options.features
        limit, short = self._bound("features", options)
        before = self._before(options)
        self._drop("features", lambda need: self._store.feature_layer.drop(need, before, _BLOCKS), limit)
        return self._wait(self._store.feature_layer.oldest(), options, short)

    def _results(self) -> float:
        options = self._options.results
        limit, short = self._bound("results", options)
        before = self._before(options)
        self._drop("results", lambda need: self._store.result_layer.drop(need, before, _RESULTS), limit)
        return self._wait(self._store.result_layer.oldest(), options, short)

    def _drop(self, layer: LayerName, drop: Callable[[int], Amounts], limit: int) -> None:
        total = Amounts()
        while not self._closing.is_set():
            need = max(0, self._held(layer) - limit)
            dropped = self._paced(lambda need=need: drop(need))  # type: ignore[misc]
            total = total.plus(dropped)
            if not dropped.dropped_blocks:
                break
        if total.dropped_blocks and layer not in self._told:
            self._told.add(layer)
            say = log.warning if total.unprepared else log.info
            say(
                "the store drops its oldest data",
                layer=layer,
                entries=total.dropped_entries,
                bytes=total.dropped_bytes,
                without_features=total.unprepared,
            )
        elif self._held(layer) < _ENOUGH * limit and not total.dropped_blocks:
            self._told.discard(layer)

    def _refuse(self, why: str | None, policy: str) -> None:
        if why is not None and self._store.full is None:
            log.error("no new samples are taken", code="FF-STORE-007", why=why, when_full=policy)
        elif why is None and self._store.full is not None:
            log.info("samples are taken again")
        self._store.full = why

    def _bound(self, layer: LayerName, options: Bounds) -> tuple[int, bool]:
        """Bytes that a layer may have, and whether it is the disk that says so."""
        limit = int(options.max_gb * GB)
        if self._free() >= self._options.keep_free_gb * GB:
            self._ceiling.pop(layer, None)
            return limit, False
        return min(limit, self._ceiling.setdefault(layer, self._held(layer))), True

    def _held(self, layer: LayerName) -> int:
        return sum(each.bytes for each in self._store.amounts()[layer].values())

    def _before(self, options: Bounds) -> int:
        return -(2**63) if options.max_days is None else self._now() - int(options.max_days * DAY_S * 1e9)

    def _wait(self, oldest: int | None, options: Bounds, short: bool) -> float:
        wait = _LOOK_S if short else _LONGEST_S
        if oldest is None or options.max_days is None:
            return wait
        return min(wait, options.max_days * DAY_S - (self._now() - oldest) / 1e9)

    def _give_back(self) -> None:
        """Return free pages to the file system, beyond those that the next blocks will need."""
        while not self._closing.is_set():
            free, pages = self._store.file.maintain(
                lambda db: [db.execute(f"PRAGMA {each}").fetchone()[0] for each in ("freelist_count", "page_count")]
            )
            if free <= max(_PAGES, _SPARE * pages):
                return
            self._paced(
                lambda: self._store.file.maintain(
                    lambda db: db.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall()
                )
            )

    def _paced(self, work: Callable[[], R]) -> R:
        began = time.monotonic()
        try:
            return work()
        finally:
            self._closing.wait(time.monotonic() - began)
