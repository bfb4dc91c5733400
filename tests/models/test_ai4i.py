"""Classification of a table on real data: AI4I 2020, machine failures, ten thousand rows, one in thirty a failure."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from models import training
from models.dataset import Dataset, Rows, build
from models.schema import FieldSpec, Schema
from models.spec import DataSpec, NetworkSpec, RoundsSpec, TaskSpec, TrainingSpec
from tests.conftest import missing
from tests.models.simulation import federate, joined, score

SITES = 4
FIELDS = {
    "Air temperature [K]": "K",
    "Process temperature [K]": "K",
    "Rotational speed [rpm]": "rpm",
    "Torque [Nm]": "Nm",
    "Tool wear [min]": "min",
}
"""Inputs beside the product's quality class; the five columns of failure modes would give the label away."""

SCHEMA = Schema(
    fields=(
        FieldSpec(name="Type", kind="category"),
        *(FieldSpec(name=name, unit=unit) for name, unit in FIELDS.items()),
    ),
    label=FieldSpec(name="Machine failure", kind="category"),
)
SPEC = TaskSpec(
    name="failure",
    kind="classification",
    data=DataSpec(window=1, holdout=0.2),
    network=NetworkSpec(encoder=(32,), trunk=(16,)),
    training=TrainingSpec(epochs=2, batch_size=32, learning_rate=5e-3, learning_rate_decay=0.9),
    rounds=RoundsSpec(max=12),
)


def sites(path: Path) -> list[Dataset]:
    """Every fourth row to each site; the most recent fifth of each held out."""
    with path.open() as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    x = np.array([["LMH".index(row["Type"]), *(float(row[name]) for name in FIELDS)] for row in table])
    y = np.array([float(row["Machine failure"]) for row in table])
    time = np.arange(len(y))
    return [
        build(SPEC.data, Rows(time[part], x[part], np.zeros(len(time[part])), y[part]), f"site-{part.start}")
        for part in (slice(site, None, SITES) for site in range(SITES))
    ]


@pytest.mark.clause("6.1")
def test_federated_failure_detection_is_near_the_joined_data_and_above_the_sites(data_dir: Path) -> None:
    path = data_dir / "ai4i" / "ai4i2020.csv"
    if not path.exists():
        missing(f"no {path}")
    ends = sites(path)
    everything = joined(ends)

    def measure(parts: list[Dataset]) -> dict[str, float]:
        params = federate(SPEC, [(SCHEMA, part) for part in parts])
        tally = training.evaluate(SPEC, SCHEMA, params, everything)
        return {metric: score(SPEC, [tally], metric) for metric in ("auc", "loss")}

    federated, central = measure(ends), measure([everything])
    alone = [measure([end]) for end in ends]
    assert central["auc"] > 0.95
    assert federated["auc"] > 0.95
    assert federated["auc"] > central["auc"] - 0.02
    assert federated["auc"] > np.mean([one["auc"] for one in alone])
    assert federated["loss"] < min(one["loss"] for one in alone)
