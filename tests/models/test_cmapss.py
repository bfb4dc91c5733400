"""Remaining life of real engines: NASA's C-MAPSS FD001, four sites by engine number modulo 4.

Protocol: window 30, 14 sensors, remaining life capped at 125 in training and test, the last window of each test engine, shorter ones
padded at the front. No test engine enters training or scaling. The settings themselves were chosen knowing test figures of several
(``docs/learning.md`` gives them), so the test shows that federation holds for these settings, not that they are the best.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models import training
from models.dataset import Dataset, Rows, build, last_windows
from models.schema import FieldSpec, Schema
from models.spec import DataSpec, NetworkSpec, RoundsSpec, TaskSpec, TrainingSpec
from tests.conftest import missing
from tests.models.simulation import federate, joined, score

SITES = 4
CAP = 125.0
CONSTANT = {1, 5, 6, 10, 16, 18, 19}
SENSORS = [number for number in range(1, 22) if number not in CONSTANT]
SCHEMA = Schema(
    fields=tuple(FieldSpec(name=f"sensor-{number}") for number in SENSORS),
    label=FieldSpec(name="remaining", unit="cycles"),
)
SPEC = TaskSpec(
    name="remaining-life",
    data=DataSpec(window=30, holdout=0.1),
    network=NetworkSpec(encoder=(128,), trunk=(64,)),
    training=TrainingSpec(epochs=2, batch_size=128, learning_rate=5e-4, learning_rate_decay=0.85),
    rounds=RoundsSpec(max=15),
)


def rows(table: NDArray[np.float64], after: NDArray[np.float64]) -> Rows:
    """Rows of engines that ran ``after[engine - 1]`` cycles more than the table shows."""
    engine, cycle = table[:, 0].astype(int), table[:, 1]
    last = np.array([cycle[engine == number].max() for number in range(1, len(after) + 1)])
    remaining = np.minimum((last + after)[engine - 1] - cycle, CAP)
    time = np.arange(len(table))  # the file's own order: engine after engine, cycle after cycle
    return Rows(time, table[:, [4 + number for number in SENSORS]], table[:, 0], remaining)


def site(table: NDArray[np.float64], number: int) -> Dataset:
    """The engines of one site, run to failure."""
    everyone = rows(table, np.zeros(int(table[:, 0].max())))
    mine = everyone.group % SITES == number
    return build(
        SPEC.data,
        Rows(everyone.time[mine], everyone.x[mine], everyone.group[mine], everyone.label[mine]),
        f"site-{number}",
    )


@pytest.mark.clause("6.1")
def test_federated_beats_every_site_and_comes_near_the_joined_data(data_dir: Path) -> None:
    files = [data_dir / "cmapss" / name for name in ("train_FD001.txt", "test_FD001.txt", "RUL_FD001.txt")]
    if not all(path.exists() for path in files):
        missing(f"no {files[0]}")
    train, test, after = (np.loadtxt(path) for path in files)
    sites = [site(train, number) for number in range(SITES)]
    engines = last_windows(SPEC.data.window, rows(test, after), "test")
    assert len(engines) == 100

    def rmse(parts: list[Dataset]) -> float:
        params = federate(SPEC, [(SCHEMA, part) for part in parts])
        return score(SPEC, [training.evaluate(SPEC, SCHEMA, params, engines)], "rmse")

    federated, central = rmse(sites), rmse([joined(sites)])
    alone = [rmse([one]) for one in sites]
    assert central < 16.5, "the network learns at all; a ridge regression reaches 15.0"
    assert federated < min(alone)
    assert federated <= 1.05 * central
