"""The cleaning rules of one field. A sample that a rule rejects is missing; each rule counts what it rejected."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gateway.config import ClusterField

RULES = ("bad", "type", "clock", "late", "duplicate", "range", "rate", "frozen")
"""What can be wrong with a sample, in the order in which it is looked for."""

NEVER = -(2**62)
"""A time before all others; half the range, so that differences do not overflow."""

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Events:
    """Samples of one field, in the order in which they take effect."""

    at: NDArray[np.int64]
    """[n] when it takes effect: its source time, or later if it came late."""
    time: NDArray[np.int64]
    """[n] source time."""
    value: NDArray[np.float64]
    """[n] NaN: missing."""

    def __len__(self) -> int:
        return len(self.at)

    def part(self, chosen: NDArray[np.bool_] | NDArray[np.intp] | slice) -> Events:
        """Some of them."""
        return Events(self.at[chosen], self.time[chosen], self.value[chosen])

    @classmethod
    def none(cls) -> Self:
        """No event."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))

    @classmethod
    def join(cls, parts: list[Events]) -> Self:
        """One behind the other."""
        return cls(
            np.concatenate([part.at for part in parts]),
            np.concatenate([part.time for part in parts]),
            np.concatenate([part.value for part in parts]),
        )


@dataclass(slots=True)
class Memory:
    """What the rules remember of the samples before."""

    time: int = NEVER
    """Newest source time, and the value that came with it."""
    value: float = float("nan")
    accepted_time: int = NEVER
    """The last value that range and rate accepted."""
    accepted: float = float("nan")
    since: int = NEVER
    """When that value was reached."""


def clean(field: ClusterField, events: Events, memory: Memory, counts: Counter[str]) -> Events:
    """The events that are news, with NaN for rejected values. ``memory`` and ``counts`` are brought up to date."""
    events = _news(events, memory, counts)
    if not len(events):
        return events
    value = events.value.copy()
    with np.errstate(invalid="ignore"):
        outside = np.zeros(len(value), np.bool_)
        if field.min is not None:
            outside |= value < field.min
        if field.max is not None:
            outside |= value > field.max
    counts["range"] += int(outside.sum())
    value[outside] = np.nan
    measured = np.flatnonzero(~np.isnan(value))
    if field.max_rate_per_s is not None:
        quick = _too_quick(events.time[measured], value[measured], field.max_rate_per_s, memory)
        counts["rate"] += int(quick.sum())
        value[measured[quick]] = np.nan
        measured = measured[~quick]
    if not len(measured):
        return replace(events, value=value)
    since = _reached(events.time[measured], value[measured], memory)
    memory.accepted_time, memory.accepted = int(events.time[measured[-1]]), float(value[measured[-1]])
    memory.since = int(since[-1])
    if field.frozen_s is not None:
        frozen = events.time[measured] - since > field.frozen_s * SECOND
        counts["frozen"] += int(frozen.sum())
        value[measured[frozen]] = np.nan
    return replace(events, value=value)


def _news(events: Events, memory: Memory, counts: Counter[str]) -> Events:
    """Without what is older than a sample that took effect before (late), and without repetitions of one sample (duplicate)."""
    newest = np.maximum.accumulate(np.concatenate([[memory.time], events.time]))[:-1]
    late = events.time < newest
    counts["late"] += int(late.sum())
    if late.any():
        events = events.part(~late)
    if not len(events):
        return events
    time = np.concatenate([[memory.time], events.time])
    value = np.concatenate([[memory.value], events.value])
    equal = (value[1:] == value[:-1]) | (np.isnan(value[1:]) & np.isnan(value[:-1]))
    repeated = (time[1:] == time[:-1]) & equal
    counts["duplicate"] += int(repeated.sum())
    memory.time, memory.value = int(time[-1]), float(value[-1])
    return events.part(~repeated) if repeated.any() else events


def _too_quick(time: NDArray[np.int64], value: NDArray[np.float64], limit: float, memory: Memory) -> NDArray[np.bool_]:
    """Which values moved faster than the limit (per second) since the last accepted one."""
    if not len(value):
        return np.zeros(0, np.bool_)
    before, at = memory.accepted, memory.accepted_time
    if np.isnan(before):
        before, at = float(value[0]), int(time[0])
    steps = np.abs(np.diff(value, prepend=before))
    if not (steps > limit * (np.diff(time, prepend=at) / SECOND)).any():
        return np.zeros(len(value), np.bool_)
    quick = np.zeros(len(value), np.bool_)  # each verdict depends on the one before
    for i, (moment, current) in enumerate(zip(time.tolist(), value.tolist(), strict=True)):
        if abs(current - before) > limit * ((moment - at) / SECOND):
            quick[i] = True
        else:
            before, at = current, moment
    return quick


def _reached(time: NDArray[np.int64], value: NDArray[np.float64], memory: Memory) -> NDArray[np.int64]:
    """For each value, when it was reached: the time of the first one in the unbroken row of equal values it belongs to."""
    changed = np.concatenate([[value[0] != memory.accepted], value[1:] != value[:-1]])
    return np.maximum.accumulate(np.where(changed, time, memory.since))
