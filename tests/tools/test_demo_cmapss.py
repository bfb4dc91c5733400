"""Engines' files: read in either case and form; scaled training data come back to the units of the test file without a label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import missing
from tools.demo import cmapss, engines
from tools.errors import ToolError


@pytest.fixture
def folder(data_dir: Path) -> Path:
    if not (data_dir / "cmapss" / "train_FD001.txt").exists():
        missing(f"no C-MAPSS in {data_dir}")
    return data_dir / "cmapss"


def test_recovered_units_are_those_of_the_file_before_it_was_scaled(folder: Path) -> None:
    """FD001 exists unscaled: scale it, recover it, compare."""
    data = cmapss.load(folder, "FD001")
    steps = cmapss._quantum(folder / "test_FD001.txt")
    for column, sensor in enumerate(cmapss.SENSORS, start=2):
        values = data.train[:, column]
        scaled = (values - values.min()) / np.ptp(values)
        found = cmapss.unscaled(data.train[:, :2], scaled, data.test[:, :2], data.test[:, column], steps[4 + sensor])
        assert np.ptp(found) == pytest.approx(np.ptp(values), rel=1e-9), "the range is exact"
        assert np.ptp(found - values) < 1e-6 * np.ptp(values), "and so is the shape"
        new = values[data.train[:, 1] <= cmapss.NEW_CYCLES]
        assert abs(np.mean(found - values)) < 0.15 * new.std(), (
            "the level is known to a fraction of the spread of new engines"
        )


def test_the_scaled_subset_is_read_as_engines_run_to_failure(folder: Path) -> None:
    if not (folder / "train_fd003.parquet").exists():
        missing("no scaled FD003")
    data = cmapss.load(folder, "FD003")
    assert "min-max scaled" in data.about
    assert data.train.shape == (24720, 2 + len(cmapss.SENSORS))
    assert len(data.remaining) == 100
    for column in range(2, data.train.shape[1]):
        new, tested = (table[table[:, 1] <= cmapss.NEW_CYCLES, column] for table in (data.train, data.test))
        assert abs(new.mean() - tested.mean()) < 0.1 * tested.std()
        assert new.std() == pytest.approx(tested.std(), rel=0.25), (
            "not only the level: the spread of new engines agrees too"
        )


def test_sites_divide_the_engines_and_the_test_engines_are_padded(folder: Path) -> None:
    scenario = engines.scenario(folder, "FD001", 0)
    assert sum(end.rows for end in scenario.ends) == 20631
    assert set.union(*(set(end.runs) for end in scenario.ends)) == set(range(1, 101))
    assert {end.serve for end in scenario.ends} == {"opcua", "modbus", "sql"}
    test = scenario.test["hangar-a"]
    assert test.x.shape == (100, 30, 14)
    assert (test.y.min(), test.y.max()) == (7, 125)
    one, other = (cluster.schema for cluster in scenario.clusters)
    assert one.digest() == other.digest(), "one schema: encoder, trunk and head are all shared"


def test_absent_and_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="FD009") as caught:
        cmapss.load(tmp_path, "FD009")
    assert caught.value.code == "FF-DEMO-004"
    for stem in ("TRAIN_fd009", "test_FD009", "rul_FD009"):
        (tmp_path / f"{stem}.txt").write_text("1 2 3\n")
    with pytest.raises(ToolError, match="26 numbers") as caught:
        cmapss.load(tmp_path, "FD009")
    assert caught.value.code == "FF-DEMO-005"
