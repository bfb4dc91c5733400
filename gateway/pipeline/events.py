"""Samples of all fields of all ends of a cluster as columns, so that one pass of numpy serves them all.

A field has a number for each end: ``end * fields of the cluster + field``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

NEVER = -(2**62)
"""A time before all others; half the range, so that differences do not overflow."""

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Events:
    """n samples on their way into rows. In order means: by field, then by ``at``, then by arrival."""

    field: NDArray[np.int64]
    """[n] number of the field."""
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

    def shifted(self, by: int) -> Events:
        """The same of other fields, whose numbers are greater by ``by``."""
        return Events(self.field + by, self.at, self.time, self.value)

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
    """[n] which entry, where equal numbers stand together, is the first of its number."""
    first = np.ones(len(field), np.bool_)
    np.not_equal(field[1:], field[:-1], out=first[1:])
    return first


def lasts(field: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[n] which entry, where equal numbers stand together, is the last of its number."""
    last = np.ones(len(field), np.bool_)
    np.not_equal(field[1:], field[:-1], out=last[:-1])
    return last


_Number = TypeVar("_Number", np.int64, np.float64)


def before(field: NDArray[np.int64], column: NDArray[_Number], memory: NDArray[_Number]) -> NDArray[_Number]:
    """[n] the entry before each, of the same field; for a field's first one, what is remembered of it. Equal fields stand together."""
    shifted = np.empty_like(column)
    shifted[1:] = column[:-1]
    first = firsts(field)
    shifted[first] = memory[field[first]]
    return shifted


def highest_before(field: NDArray[np.int64], time: NDArray[np.int64], memory: NDArray[np.int64]) -> NDArray[np.int64]:
    """[n] the greatest time before each, of the same field, the remembered one included. Fields go up."""
    times, rank = np.unique(before(field, time, memory), return_inverse=True)
    floor = field * len(times)  # each field's ranks stand above those of the fields before
    return times[np.maximum.accumulate(floor + rank) - floor]


def keys(field: NDArray[np.int64], time: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """[n] one number for field and time, in the order of both; ``times``, in order, are those that are told apart."""
    return field * (len(times) + 1) + np.searchsorted(times, time, side="right")
