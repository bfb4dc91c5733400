"""A small store of machines that wear out in a way a network can learn, for tests that train for real."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gateway.blocks import FeatureBlock
from gateway.config import Config
from gateway.store import Labelling, Recipe, Store
from models.schema import FieldSpec, Schema
from models.spec import DataSpec, NetworkSpec, RoundsSpec, TaskSpec, TrainingSpec

SCHEMA = Schema(
    fields=(FieldSpec(name="vibration", unit="mm/s"), FieldSpec(name="temperature", unit="degC")),
    label=FieldSpec(name="remaining", unit="cycles"),
)
CYCLES = 40
SECOND = 1_000_000_000


def spec(**changes: object) -> TaskSpec:
    """A task that these machines can be learned with in a second or two."""
    values: dict[str, object] = {
        "name": "wear",
        "layer": "cluster",
        "data": DataSpec(window=4, holdout=0.25),
        "network": NetworkSpec(encoder=(16,), trunk=(8,)),
        "training": TrainingSpec(epochs=2, batch_size=32, learning_rate=0.01),
        "rounds": RoundsSpec(max=3),
    }
    return TaskSpec.model_validate(values | changes)


def rows(end: str, first: int, runs: int) -> FeatureBlock:
    """``runs`` whole runs of the end from run number ``first``; the same for the same arguments."""
    x, group, label = [], [], []
    for run in range(first, first + runs):
        random = np.random.default_rng([run, *end.encode()])
        cycle = np.arange(CYCLES)
        wear = cycle / CYCLES
        x.append(np.stack([2 + 6 * wear**2, 40 + 30 * wear], axis=1) + random.normal(0, 0.05, (CYCLES, 2)))
        group.append(np.full(CYCLES, float(run)))
        label.append(cycle.astype(float))
    time = (first * CYCLES + np.arange(runs * CYCLES, dtype=np.int64) + 1) * SECOND
    return FeatureBlock(time, np.concatenate(x), np.concatenate(group), np.concatenate(label))


def fill(path: Path, ends: Sequence[str], runs: int = 6) -> None:
    """A store at ``path`` with that many runs of each end; the last is labelled only when a further one begins."""
    with Store.open(path) as store:
        for end in ends:
            store.declare(end, Recipe("test", ("vibration", "temperature"), Labelling("remaining")))
            if runs:
                store.append_features(end, rows(end, 0, runs))


def more(path: Path, end: str, first: int, runs: int = 1) -> None:
    """Further runs of an end."""
    with Store.open(path) as store:
        store.append_features(end, rows(end, first, runs))


def config(folder: Path, ends: Sequence[str] = ("spindle-1", "spindle-2")) -> Config:
    """A gateway whose cluster "spindles" these machines are; their tags are nobody's, the store has their rows already."""
    fields = [
        {"name": "vibration", "unit": "mm/s"},
        {"name": "temperature", "unit": "degC"},
        {"name": "cycle", "unit": "cycles", "role": "aux"},
        {"name": "run", "role": "aux"},
    ]
    cluster = {
        "name": "spindles",
        "rows": {"on_change": "cycle"},
        "group": "run",
        "label": {"remaining": "cycle"},
        "field": fields,
    }
    tags = {str(field["name"]): f"press/{field['name']}" for field in fields}
    return Config.model_validate(
        {
            "gateway": {"name": "gateway-a", "data_dir": str(folder)},
            "cluster": [cluster],
            "end": [{"name": end, "cluster": "spindles", "tags": tags} for end in ends],
        }
    )
