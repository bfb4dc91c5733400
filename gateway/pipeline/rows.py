"""From cleaned events to rows: when there is one, and which value each cell takes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gateway.config import ClusterField
from gateway.pipeline.events import SECOND, Events, firsts, lasts


def changes(events: Events, before: float) -> tuple[NDArray[np.int64], float]:
    """Times at which the value of one field differs from the one before, and its last value; of several events at one time the
    last one counts."""
    good = events.part(~np.isnan(events.value))
    if not len(good):
        return np.zeros(0, np.int64), before
    good = good.part(np.append(good.at[1:] != good.at[:-1], True))
    changed = good.value != np.append(before, good.value[:-1])
    return good.at[changed], float(good.value[-1])


def ticks(at: NDArray[np.int64], every: int) -> NDArray[np.int64]:
    """Ends of the intervals (``every`` ns, aligned to the epoch, closed at the end) in which anything arrived."""
    return np.unique(_tick(at, every))


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

    def cells(self, events: Events, times: NDArray[np.int64]) -> NDArray[np.float64]:
        """The value [fields, n] at each time: the last good one at or before it, as far as its field may hold it."""
        borders = np.searchsorted(events.field, np.arange(len(self._drop) + 1)).tolist()
        current = np.empty((len(self._drop), len(times)), np.int64)
        for number, (start, end) in enumerate(pairwise(borders)):
            found = events.at[start:end].searchsorted(times, side="right") - 1
            current[number] = np.where(found < 0, -1, found + start)
        if not len(events):
            return np.full(current.shape, np.nan)
        good = np.where(current >= 0, _last_good(events)[current], -1)
        usable = (good >= 0) & ~(self._drop[:, None] & (good != current))
        usable &= times - events.time[good] <= self._age[:, None]
        return np.where(usable, events.value[good], np.nan)


def means(events: Events, times: NDArray[np.int64], every: int) -> NDArray[np.float64]:
    """The mean [n] of the good values of one field in each interval; NaN where there is none."""
    good = events.part(~np.isnan(events.value))
    tick = _tick(good.at, every)
    known = np.isin(tick, times)
    row = np.searchsorted(times, tick[known])
    count = np.bincount(row, minlength=len(times))
    total = np.bincount(row, weights=good.value[known], minlength=len(times))
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
