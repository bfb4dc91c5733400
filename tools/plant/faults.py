"""From a machine's row to what its reader gets: mostly the same, sometimes a drop-out, a stuck or bad value, a wrong clock. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tools.plant.config import Fault
from tools.plant.physics import Row


@dataclass(frozen=True, slots=True)
class Reading:
    """What a server shows of one cycle."""

    time_ns: int
    """Source time, nanoseconds since the epoch, UTC, as the machine's own clock has it."""
    run: int
    cycle: int
    values: tuple[float | None, ...]
    """In the order of the machine's fields. None: of bad quality."""


class Injector:
    """The faults of one machine. The same seed and name give the same faults at the same cycles."""

    def __init__(self, faults: Sequence[Fault], fields: Sequence[str], *, seed: int, name: str) -> None:
        self._faults = [(fault, [fields.index(field) for field in fault.fields or fields]) for fault in faults]
        self._until = [0] * len(faults)
        self._random = np.random.default_rng([seed, zlib.crc32(name.encode()), 1])
        self._seen = 0
        self._held: tuple[float | None, ...] = ()

    def apply(self, row: Row, time_ns: int) -> Reading | None:
        """The row as it leaves the plant at ``time_ns``; None where a drop-out swallows it."""
        self._seen += 1
        values: list[float | None] = list(row.values)
        dropped = False
        for number, (fault, columns) in enumerate(self._faults):
            if not self._active(number, fault):
                continue
            dropped |= fault.kind == "dropout"
            if fault.kind == "clock":
                time_ns += round(fault.jump_s * 1e9)
            for column in columns:
                if fault.kind == "bad":
                    values[column] = None
                elif fault.kind == "frozen" and self._held:
                    values[column] = self._held[column]
        if dropped:
            return None
        self._held = tuple(values)
        return Reading(time_ns, row.run, row.cycle, self._held)

    def _active(self, number: int, fault: Fault) -> bool:
        begins = self._seen in fault.at or self._random.random() < fault.probability
        if begins:
            self._until[number] = self._seen + fault.cycles
        return self._seen < self._until[number]
