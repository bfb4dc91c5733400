"""The cleaning rules. A sample that a rule rejects is missing; each rule counts, field by field, what it rejected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from gateway.config import ClusterField
from gateway.pipeline.events import NEVER, SECOND, Events, before, firsts, highest_before, lasts

RULES = ("samples", "bad", "type", "clock", "late", "duplicate", "range", "rate", "frozen")
"""What is counted: samples that came, and what was wrong with some, in the order in which it is looked for."""


@dataclass(slots=True)
class Memory:
    """What the rules remember of each field's samples before."""

    time: NDArray[np.int64]
    """Newest source time, and the value that came with it."""
    value: NDArray[np.float64]
    accepted_time: NDArray[np.int64]
    """The last value that range and rate accepted."""
    accepted: NDArray[np.float64]
    since: NDArray[np.int64]
    """When that value was reached."""

    @classmethod
    def of(cls, n: int) -> Memory:
        """Nothing yet, of n fields."""
        times, values = np.full(n, NEVER, np.int64), np.full(n, np.nan)
        return cls(times, values, times.copy(), values.copy(), times.copy())

    def lists(self, part: slice) -> list[list[float]]:
        """Its columns for some fields, as plain lists."""
        return [getattr(self, column.name)[part].tolist() for column in fields(self)]

    def put(self, part: slice, columns: Sequence[Sequence[float]]) -> None:
        """Take back what `lists` gave for these fields."""
        for column, values in zip(fields(self), columns, strict=True):
            getattr(self, column.name)[part] = values


class Cleaner:
    """The rules of all fields of a cluster's ends, what they remember, and ``counts`` [fields, RULES]."""

    def __init__(self, rules: Sequence[ClusterField]) -> None:
        self._low = np.array([-np.inf if rule.min is None else rule.min for rule in rules])
        self._high = np.array([np.inf if rule.max is None else rule.max for rule in rules])
        self._rate = np.array([np.inf if rule.max_rate_per_s is None else rule.max_rate_per_s for rule in rules])
        self._frozen = np.array([np.inf if rule.frozen_s is None else rule.frozen_s * SECOND for rule in rules])
        self.memory = Memory.of(len(rules))
        self.counts = np.zeros((len(rules), len(RULES)), np.int64)

    def count(self, rule: str, field: NDArray[np.int64]) -> None:
        """One more for each of these fields."""
        if len(field):
            self.counts[:, RULES.index(rule)] += np.bincount(field, minlength=len(self.counts))

    def clean(self, events: Events) -> Events:
        """Out of events in order those that are news, with NaN for rejected values."""
        events = self._news(events)
        if not len(events):
            return events
        value = events.value.copy()
        outside = (value < self._low[events.field]) | (value > self._high[events.field])
        self.count("range", events.field[outside])
        value[outside] = np.nan
        measured = np.flatnonzero(~np.isnan(value))
        quick = self._too_quick(events.field[measured], events.time[measured], value[measured])
        self.count("rate", events.field[measured[quick]])
        value[measured[quick]] = np.nan
        measured = measured[~quick]
        frozen = measured[self._is_frozen(events.field[measured], events.time[measured], value[measured])]
        self.count("frozen", events.field[frozen])
        value[frozen] = np.nan
        return replace(events, value=value)

    def _news(self, events: Events) -> Events:
        """Without what is older than a sample that took effect before (late), and without repetitions of one sample (duplicate)."""
        memory = self.memory
        late = events.time < before(events.field, events.time, memory.time)
        if late.any():
            late = events.time < highest_before(events.field, events.time, memory.time)
            self.count("late", events.field[late])
            events = events.part(~late)
        if not len(events):
            return events
        value = before(events.field, events.value, memory.value)
        equal = (events.value == value) | (np.isnan(events.value) & np.isnan(value))
        repeated = (events.time == before(events.field, events.time, memory.time)) & equal
        last = lasts(events.field)
        memory.time[events.field[last]] = events.time[last]
        memory.value[events.field[last]] = events.value[last]
        self.count("duplicate", events.field[repeated])
        return events.part(~repeated) if repeated.any() else events

    def _too_quick(
        self, field: NDArray[np.int64], time: NDArray[np.int64], value: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Which values moved faster than the limit since the last accepted one of their field."""
        quick = np.zeros(len(value), np.bool_)
        limit = self._rate[field]
        limited = np.isfinite(limit)
        if not limited.any():
            return quick
        moved = np.abs(value - before(field, value, self.memory.accepted))
        elapsed = (time - before(field, time, self.memory.accepted_time)) / SECOND
        suspicious = limited & (moved > np.where(limited, limit, 0.0) * elapsed)
        for number in np.unique(field[suspicious]):  # each verdict depends on the one before
            mine = np.arange(*np.searchsorted(field, [number, number + 1]))
            last, at = float(self.memory.accepted[number]), int(self.memory.accepted_time[number])
            for i, moment, current in zip(mine.tolist(), time[mine].tolist(), value[mine].tolist(), strict=True):
                if abs(current - last) > self._rate[number] * ((moment - at) / SECOND):
                    quick[i] = True
                else:
                    last, at = current, moment
        return quick

    def _is_frozen(
        self, field: NDArray[np.int64], time: NDArray[np.int64], value: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Which values have been repeated for too long; the accepted values are remembered."""
        memory = self.memory
        changed = value != before(field, value, memory.accepted)
        number = np.arange(len(field))
        start = np.maximum.accumulate(np.where(firsts(field), number, 0))
        reached = np.maximum.accumulate(np.where(changed, number, -1))
        since = np.where(reached >= start, time[reached], memory.since[field])
        last = lasts(field)
        memory.accepted_time[field[last]], memory.accepted[field[last]] = time[last], value[last]
        memory.since[field[last]] = since[last]
        frozen: NDArray[np.bool_] = time - since > self._frozen[field]
        return frozen
