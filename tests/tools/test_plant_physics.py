"""Machines wear out, visibly, and the same way for the same seed."""

from __future__ import annotations

from itertools import islice, takewhile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.plant.physics import FIELDS, Kind, Machine, Regime, Row, severity

KINDS: tuple[Kind, ...] = ("spindle", "pump")


def runs(machine: Machine, count: int) -> list[Row]:
    return list(takewhile(lambda row: row.run <= count, machine.rows()))


@given(seed=st.integers(0, 2**31), kind=st.sampled_from(KINDS))
def test_the_same_seed_and_name_give_the_same_series(seed: int, kind: Kind) -> None:
    one, other = (list(islice(Machine("m", kind, seed=seed).rows(), 50)) for _ in range(2))
    assert one == other
    assert one != list(islice(Machine("n", kind, seed=seed).rows(), 50))
    assert one != list(islice(Machine("m", kind, seed=seed + 1).rows(), 50))


@pytest.mark.parametrize("kind", KINDS)
def test_wear_only_grows_until_the_machine_fails(kind: Kind) -> None:
    before, run = 0.0, 0
    for row, state in islice(Machine("m", kind, seed=3).history(), 2000):
        if row.run != run:
            assert (row.run, row.cycle) == (run + 1, 1)
            assert run == 0 or before > 0.8, "the run before went to its end"
            run, before = row.run, 0.0
        assert before <= state.wear < 1.0
        before = state.wear
    assert run > 3


@pytest.mark.parametrize(
    ("kind", "field", "sign"),
    [
        ("spindle", "vibration", 1),
        ("spindle", "temperature", 1),
        ("spindle", "current", 1),
        ("pump", "vibration", 1),
        ("pump", "pressure", -1),
        ("pump", "flow", -1),
        ("pump", "quality", -1),
        ("spindle", "quality", -1),
    ],
)
def test_sensors_show_the_wear(kind: Kind, field: str, sign: int) -> None:
    steady = Regime(load=(0.7, 0.71), speed=(0.8, 0.81))
    history = islice(Machine("m", kind, seed=5, regime=steady).history(), 1500)
    wear, shown = zip(*((s.wear, r.values[list(FIELDS[kind]).index(field)]) for r, s in history), strict=True)
    assert sign * np.corrcoef(wear, shown)[0, 1] > 0.4


def test_hard_driven_machines_fail_earlier() -> None:
    def life(load: float) -> float:
        rows = runs(Machine("m", "spindle", seed=1, regime=Regime((load, load), (0.9, 0.9))), 10)
        return len(rows) / 10

    assert life(0.4) > 1.8 * life(0.9)
    assert severity(0.4, 0.9) < severity(0.9, 0.9) <= severity(1.0, 1.0) == 1.0
