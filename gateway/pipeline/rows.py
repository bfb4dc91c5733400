"""From the cleaned events of each field to rows: when there is one, and which value each cell takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gateway.config import ClusterField
from gateway.pipeline.clean import SECOND, Events


def changes(events: Events, before: float) -> NDArray[np.int64]:
    """Times at which the value differs from the one before; of several events at one time, the last one counts."""
    good = events.part(~np.isnan(events.value))
    if not len(good):
        return np.zeros(0, np.int64)
    good = good.part(np.append(good.at[1:] != good.at[:-1], True))
    changed: NDArray[np.bool_] = good.value != np.concatenate([[before], good.value[:-1]])
    return good.part(changed).at


def ticks(events: Sequence[Events], every: int) -> NDArray[np.int64]:
    """Ends of the intervals (``every`` ns, aligned to the epoch, closed at the end) in which anything arrived."""
    return np.unique(np.concatenate([_tick(field.at, every) for field in events]))


def held(events: Events, times: NDArray[np.int64], field: ClusterField | None) -> NDArray[np.float64]:
    """The value [n] at each time: the last good one at or before it, as far as the field's rules let it be held.

    Without a field (trigger and group) it is held without limit.
    """
    if not len(events):
        return np.full(len(times), np.nan)
    good = ~np.isnan(events.value)
    last_good = np.maximum.accumulate(np.where(good, np.arange(len(events)), -1))
    current = np.searchsorted(events.at, times, side="right") - 1
    source = np.where(current >= 0, last_good[current], -1)
    usable = source >= 0
    if field is not None and field.missing == "drop":
        usable &= source == current
    if field is not None and field.max_hold_s is not None:
        usable &= times - events.time[source] <= field.max_hold_s * SECOND
    return np.where(usable, events.value[source], np.nan)


def mean(events: Events, times: NDArray[np.int64], every: int, field: ClusterField) -> NDArray[np.float64]:
    """The mean [n] of the good values of each interval; where there is none, what `held` gives."""
    good = events.part(~np.isnan(events.value))
    tick = _tick(good.at, every)
    good, tick = good.part(np.isin(tick, times)), tick[np.isin(tick, times)]
    row = np.searchsorted(times, tick)
    count = np.bincount(row, minlength=len(times))
    total = np.bincount(row, weights=good.value, minlength=len(times))
    return np.where(count > 0, total / np.maximum(count, 1), held(events, times, field))


def _tick(at: NDArray[np.int64], every: int) -> NDArray[np.int64]:
    return -(-at // every) * every
