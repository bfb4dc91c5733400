"""Machines that wear out: a hidden wear drives what the sensors show and how long the machine still lasts. No I/O, no clock.

Wear is a gamma process (van Noortwijk 2009): every cycle adds a random, never negative, amount whose mean grows with how hard the
machine is driven and with the wear itself. At 1 the machine has failed; it is overhauled and its next run begins.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np

Kind = Literal["spindle", "pump"]

COUNTERS = ("run", "cycle")
"""What every row has beside its fields. The run counts from 1, the cycle within its run; run 0 is a machine that stands still."""

FIELDS: dict[Kind, dict[str, str]] = {
    "spindle": {
        "vibration": "mm/s",
        "temperature": "degC",
        "current": "A",
        "speed": "1/min",
        "quality": "",
    },
    "pump": {
        "vibration": "mm/s",
        "temperature": "degC",
        "pressure": "bar",
        "flow": "m3/h",
        "current": "A",
        "speed": "1/min",
        "quality": "",
    },
}
"""Fields of each kind with their units, in order. ``quality`` is 1 where the part or batch was good, 0 where it was scrap."""

LIFE_CYCLES = 50.0
"""Cycles a machine at its rated load and speed lasts, on average and without the acceleration by its own wear."""


@dataclass(frozen=True, slots=True)
class Row:
    """One machining cycle, as the machine itself sees it."""

    run: int
    cycle: int
    values: tuple[float, ...]
    """In the order of `FIELDS`."""


@dataclass(frozen=True, slots=True)
class Regime:
    """How a machine is driven: the range, in shares of the rated value, from which each job takes its load and speed."""

    load: tuple[float, float] = (0.4, 1.0)
    speed: tuple[float, float] = (0.5, 1.0)


@dataclass(slots=True)
class State:
    """What is hidden in the machine during one cycle."""

    wear: float
    """0: new. 1: failed."""
    load: float
    speed: float
    """Share of the rated speed."""
    heat: float
    """Warming over the hall, follows the drive with a lag. In K."""
    hall: float
    """Temperature of the hall, in degC."""


class Machine:
    """One machine: the same seed and name give the same rows, whatever else the plant does."""

    def __init__(self, name: str, kind: Kind, *, seed: int, regime: Regime | None = None) -> None:
        self.name = name
        self.kind = kind
        self._regime = regime or Regime()
        self._random = np.random.default_rng([seed, zlib.crc32(name.encode())])

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the values of a row."""
        return tuple(FIELDS[self.kind])

    def rows(self) -> Iterator[Row]:
        """Cycle after cycle, run after run, without end."""
        for row, _ in self.history():
            yield row

    def history(self) -> Iterator[tuple[Row, State]]:
        """As `rows`, with the hidden state behind each row. The state object is the machine's own: it changes with the next row."""
        for run in count(1):
            for cycle, state in enumerate(self._run(), start=1):
                yield Row(run, cycle, self._sense(state)), state

    def _run(self) -> Iterator[State]:
        random = self._random
        built = random.lognormal(0.0, 0.08)
        state = State(wear=random.uniform(0.0, 0.05), load=0.0, speed=0.0, heat=0.0, hall=random.normal(22.0, 1.0))
        job = 0
        while state.wear < 1.0:
            if job == 0:
                job = int(random.integers(10, 20))
                state.load = random.uniform(*self._regime.load)
                state.speed = random.uniform(*self._regime.speed)
            job -= 1
            state.heat += 0.15 * (_heating(state) - state.heat) if state.heat else _heating(state)
            yield state
            mean = severity(state.load, state.speed) * (0.6 + 0.8 * state.wear) * built / LIFE_CYCLES
            state.wear += random.gamma(4.0, mean / 4.0)

    def _sense(self, state: State) -> tuple[float, ...]:
        noise = self._random.standard_normal
        defect = 1 / (1 + math.exp(-(state.wear - 0.85) / 0.05))
        quality = float(self._random.random() >= defect)
        shake = state.wear**1.5
        if self.kind == "spindle":
            return (
                (0.6 + 0.6 * state.speed) * (1 + 2.5 * shake) * (1 + 0.06 * noise()),
                state.hall + state.heat + 0.3 * noise(),
                (6 + 14 * state.load * (0.8 + 0.2 * state.speed)) * (1 + 0.20 * state.wear) + 0.15 * noise(),
                18000 * state.speed * (1 - 0.02 * state.wear * state.load) + 20 * noise(),
                quality,
            )
        leak = 0.35 * state.wear
        return (
            (1.2 + 1.0 * state.speed**2) * (1 + 1.8 * shake) * (1 + 0.06 * noise()),
            state.hall + state.heat + 0.3 * noise(),
            (2 + 8 * state.load) * state.speed**2 * (1 - 0.5 * leak) + 0.06 * noise(),
            120 * state.speed * (1 - 0.3 * state.load) * (1 - leak) + 0.8 * noise(),
            (8 + 22 * state.load * state.speed**2) * (1 + 0.10 * state.wear) + 0.25 * noise(),
            2950 * state.speed * (1 - 0.01 * state.load) + 4 * noise(),
            quality,
        )


def severity(load: float, speed: float) -> float:
    """How fast wear grows, relative to the rated load and speed: bearing life falls with the cube of the load (ISO 281)."""
    return 0.25 + 0.75 * load**3 * (0.5 + 0.5 * speed)


def _heating(state: State) -> float:
    """Warming at which the machine would settle: losses from the drive, and friction that grows with wear. In K."""
    return (10 + 25 * state.load) * state.speed * (1 + 0.6 * state.wear)
