"""Samples of all fields of an end as columns, so that one pass of numpy serves every field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

NEVER = -(2**62)
"""A time before all others; half the range, so that differences do not overflow."""

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Events:
    """n samples on their way into rows. In order means: by field, then by ``at``, then by arrival."""

    field: NDArray[np.int64]
    """[n] number of the field in its cluster."""
    at: NDArray[np.int64]
    """[n] when the sample takes effect, ns: its source time, or later if it came late."""
    time: NDArray[np.int64]
    """[n] source time, ns."""
    value: NDArray[np.float64]
    """[n] in the field's unit; NaN: missing."""

    def __len__(self) -> int:
        return len(self.field)

    def part(self, chosen: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Events:
        """Some of them."""
        return Events(self.field[chosen], self.at[chosen], self.time[chosen], self.value[chosen])

    def of(self, number: int) -> Events:
        """Those of one field, out of events in order."""
        start, end = np.searchsorted(self.field, [number, number + 1])
        return self.part(slice(int(start), int(end)))

    @classmethod
    def none(cls) -> Self:
        """No event."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))

    @classmethod
    def join(cls, parts: Sequence[Events]) -> Self:
        """One behind the other."""
        return cls(
            np.concatenate([part.field for part in parts]),
            np.concatenate([part.at for part in parts]),
            np.concatenate([part.time for part in parts]),
            np.concatenate([part.value for part in parts]),
        )

    def lists(self) -> list[list[float]]:
        """Its columns as plain lists."""
        return [self.field.tolist(), self.at.tolist(), self.time.tolist(), self.value.tolist()]

    @classmethod
    def from_lists(cls, columns: Sequence[Sequence[float]]) -> Self:
        """The events again."""
        field, at, time, value = columns
        return cls(
            np.array(field, np.int64), np.array(at, np.int64), np.array(time, np.int64), np.array(value, np.float64)
        )


def firsts(field: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[n] which event, out of events in order, is the first of its field."""
    first = np.ones(len(field), np.bool_)
    np.not_equal(field[1:], field[:-1], out=first[1:])
    return first


def lasts(field: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[n] which event, out of events in order, is the last of its field."""
    last = np.ones(len(field), np.bool_)
    np.not_equal(field[1:], field[:-1], out=last[:-1])
    return last
