"""From cleaned events to rows: when there is one, and which value each cell takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.config import ClusterField
from gateway.pipeline.events import SECOND, Events, before, firsts, keys, lasts


class Moments(NamedTuple):
    """When rows are made, by end, then by time."""

    end: NDArray[np.int64]
    time: NDArray[np.int64]


def changes(events: Events, end: NDArray[np.int64], remembered: NDArray[np.float64]) -> Moments:
    """Times at which the value of a field differs from the one before; of several events at one time the last one counts.

    ``events`` are of one field of each ``end`` [n]; ``remembered`` [ends], its last values, is brought up to date.
    """
    good = ~np.isnan(events.value)
    events, end = events.part(good), end[good]
    final = lasts(end)
    final[:-1] |= events.at[1:] != events.at[:-1]
    events, end = events.part(final), end[final]
    changed = events.value != before(end, events.value, remembered)
    last = lasts(end)
    remembered[end[last]] = events.value[last]
    return Moments(end[changed], events.at[changed])


def ticks(end: NDArray[np.int64], at: NDArray[np.int64], every: int) -> Moments:
    """Ends of the intervals (``every`` ns, aligned to the epoch, closed at the end) in which anything arrived."""
    tick = _tick(at, every)
    order = np.lexsort((tick, end))
    end, tick = end[order], tick[order]
    new = firsts(end)
    new[1:] |= tick[1:] != tick[:-1]
    return Moments(end[new], tick[new])


class Holding:
    """Which field may hold its last good value for how long. The fields in ``structure`` (trigger, group, counter) hold it always."""

    def __init__(self, fields: Sequence[ClusterField], structure: set[str | None]) -> None:
        self._drop = np.array([field.missing == "drop" and field.name not in structure for field in fields])
        self._age = np.array(
            [
                np.inf if field.max_hold_s is None or field.name in structure else field.max_hold_s * SECOND
                for field in fields
            ]
        )

    def cells(self, events: Events, rows: Moments) -> NDArray[np.float64]:
        """The value [rows, fields] in each row: the last good one at or before its time, as far as its field may hold it."""
        width = len(self._drop)
        field = rows.end[:, None] * width + np.arange(width)
        if not field.size or not len(events):
            return np.full(field.shape, np.nan)
        times = np.unique(events.at)
        wanted = keys(field, rows.time[:, None], times)
        found = np.searchsorted(keys(events.field, events.at, times), wanted, side="right") - 1
        current = np.where((found >= 0) & (events.field[found] == field), found, -1)
        good = np.where(current >= 0, _last_good(events)[current], -1)
        usable = (good >= 0) & ~(self._drop & (good != current))
        usable &= rows.time[:, None] - events.time[good] <= self._age
        return np.where(usable, events.value[good], np.nan)


def means(events: Events, rows: Moments, width: int, every: int) -> NDArray[np.float64]:
    """The mean [rows, fields] of the good values of each of the ``width`` fields in each interval; NaN where there is none."""
    shape = (len(rows.time), width)
    good = events.part(~np.isnan(events.value))
    tick = _tick(good.at, every)
    times = np.unique(rows.time)
    mine, theirs = keys(rows.end, rows.time, times), keys(good.field // width, tick, times)
    row = np.minimum(np.searchsorted(mine, theirs), max(0, len(mine) - 1))
    known = (mine[row] == theirs) & (rows.time[row] == tick) if len(mine) else np.zeros(len(tick), np.bool_)
    cell = row[known] * width + good.field[known] % width
    count = np.bincount(cell, minlength=shape[0] * width).reshape(shape)
    total = np.bincount(cell, weights=good.value[known], minlength=shape[0] * width).reshape(shape)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def carry(events: Events) -> Events:
    """What later rows may need: of each field the last good event, and the missing one behind it if there is one."""
    last = np.flatnonzero(lasts(events.field))
    good = _last_good(events)[last]
    return events.part(np.unique(np.concatenate([good[good >= 0], last])))


def _last_good(events: Events) -> NDArray[np.int64]:
    """[n] position of the last good event of the same field up to each; -1 where there is none."""
    number = np.arange(len(events))
    start = np.maximum.accumulate(np.where(firsts(events.field), number, 0))
    good = np.maximum.accumulate(np.where(np.isnan(events.value), -1, number))
    return np.where(good >= start, good, -1)


def _tick(at: NDArray[np.int64], every: int) -> NDArray[np.int64]:
    return -(-at // every) * every
