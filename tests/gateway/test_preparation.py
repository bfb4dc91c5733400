"""The feature layer follows the raw layer: live, after a restart, after a change of the configuration, and by rebuilding."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from connectors.contract import Sample
from gateway.config import Config
from gateway.preparation import Preparation, rebuild
from gateway.store import Store
from models.dataset import Rows
from tests.gateway.plants import config, snapshot


def life(runs: int, cycles: int = 5) -> list[list[Sample]]:
    """Batches of one machine: runs of a few cycles."""
    return [
        snapshot(run * cycles + cycle, vibration=run + cycle / 10, temperature=32.0, cycle=cycle, run=run)
        for run in range(runs)
        for cycle in range(cycles)
    ]


def complete(preparation: Preparation) -> None:
    while preparation.advance():
        pass


def same(one: Rows, other: Rows) -> None:
    for name in ("time", "x", "group", "label"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.clause("8.4")
def test_rebuilding_gives_the_same_features(tmp_path: Path) -> None:
    made = config(tmp_path, ends=("m1", "m2"))
    with Store.open(made.gateway.store) as store:
        live = Preparation(made, store)
        for samples in life(3):
            for end in ("m1", "m2"):
                store.append_raw(end, samples, None)
            live.advance()
        before = {end: store.features(end) for end in ("m1", "m2")}
        again = rebuild(made, store)
        for end, rows in before.items():
            assert len(rows.time) == 14  # the newest snapshot is not known to be complete
            same(store.features(end), rows)
        assert again.counts() == live.counts()
        assert rows.label[:10].tolist() == [4, 3, 2, 1, 0] * 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["batch", "batch", "advance", "checkpoint", "crash"]), min_size=15, max_size=40))
def test_a_crash_at_any_moment_neither_loses_nor_repeats_a_row(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    made = config(tmp_path_factory.mktemp("store"))
    batches = iter(life(8))
    with Store.open(made.gateway.store) as store:
        preparation = Preparation(made, store)
        for step in steps:
            if step == "batch":
                store.append_raw("m1", next(batches), None)
            elif step == "advance":
                preparation.advance()
            elif step == "checkpoint":
                preparation.checkpoint()
            else:
                preparation = Preparation(made, store)
        complete(preparation)
        rows = store.features("m1")
        rebuild(made, store)
        same(store.features("m1"), rows)


@pytest.mark.clause("8.4")
def test_a_change_of_the_configuration_makes_the_features_again(tmp_path: Path) -> None:
    old = config(tmp_path)
    fields = [field.model_dump() for field in old.clusters[0].fields]
    fields[0]["max"] = 1.05
    new = config(tmp_path, field=fields)
    with Store.open(old.gateway.store) as store:
        for samples in life(2):
            store.append_raw("m1", samples, None)
        first = Preparation(old, store)
        complete(first)
        first.checkpoint()
        assert store.features("m1").x[-1, 0] == pytest.approx(1.3)
        complete(Preparation(new, store))
        assert store.features("m1").x[-1, 0] == pytest.approx(1.0)
        assert len(store.features("m1").time) == 9
        complete(Preparation(old, store))
        assert store.features("m1").x[-1, 0] == pytest.approx(1.3)


def test_what_came_in_otherwise_than_before_is_said(tmp_path: Path) -> None:
    old = config(tmp_path)
    fields = [field.model_dump() for field in old.clusters[0].fields]
    with Store.open(old.gateway.store) as store:
        for samples in life(1):
            store.append_raw("m1", samples, None)
        store.append_raw("m1", snapshot(9, vibration="warm", cycle=9.0), None)
        with capture_logs() as logs:
            complete(Preparation(old, store))
        told = {(each["event"], each["tag"], each["was"], each["now"]) for each in logs}
        assert told == {
            ("a tag gives text now", "m1/vibration", "number", "text"),
            ("the type of a tag has changed", "m1/cycle", "integer", "number"),
        }
        assert "kind" in logs[0]["hint"]
        fields[0]["unit"] = "m/s"
        with capture_logs() as logs:
            complete(Preparation(config(tmp_path, field=fields), store))
        (again,) = [each for each in logs if each["event"] == "features are made again"]
        assert (again["end"], again["rows_before"], again["cannot_be_made_again"]) == ("m1", 5, 0)


def test_a_damaged_raw_block_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    made = config(tmp_path)
    with Store.open(made.gateway.store) as store:
        for samples in life(1):
            store.append_raw("m1", samples, None)
    with sqlite3.connect(made.gateway.store) as database:
        database.execute("UPDATE raw SET data = zeroblob(50) WHERE id = 2")
    with Store.open(made.gateway.store) as store:
        preparation = Preparation(made, store)
        complete(preparation)
        assert preparation.damaged == 1
        assert store.features("m1").label.tolist() != []
        np.testing.assert_allclose(store.features("m1").x[:, 0], [0.0, 0.2, 0.3])


def test_an_end_that_is_new_catches_up_alone(tmp_path: Path) -> None:
    both = config(tmp_path, ends=("m1", "m2"))
    one = both.model_copy(update={"ends": both.ends[:1]})
    with Store.open(both.gateway.store) as store:
        for samples in life(1):
            store.append_raw("m1", samples, None)
            store.append_raw("m2", samples, None)
        first = Preparation(one, store)
        complete(first)
        first.checkpoint()
        complete(Preparation(both, store))
        same(store.features("m1"), store.features("m2"))


def test_without_ends_there_is_nothing_to_do(tmp_path: Path) -> None:
    made = Config.model_validate({"gateway": {"name": "g", "data_dir": tmp_path}})
    with Store.open(made.gateway.store) as store:
        store.append_raw("m1", snapshot(1, x=1.0), None)
        assert not Preparation(made, store).advance()
