"""The store: what goes in comes out, survives a kill, and damage is told."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.contract import Quality, Sample
from gateway.blocks import FeatureBlock, SampleBlock
from gateway.errors import StoreError
from gateway.store import Labelling, Progress, Recipe, Result, Store, codec
from tests.gateway.plants import SECOND, snapshot

TIMES = st.integers(-(2**62), 2**62)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**80), 2**80),
    st.floats(allow_nan=False),
    st.text(st.characters(), max_size=20),
)
SAMPLES = st.builds(Sample, st.sampled_from(["a", "b.c", "d-é"]), VALUES, st.sampled_from(Quality), TIMES, TIMES)
RECIPE = Recipe("one", ("a", "b"), Labelling("remaining", cap=10.0))


def block(first: int, n: int, group: float = 1.0) -> FeatureBlock:
    time = np.arange(first, first + n, dtype=np.int64)
    number = time.astype(np.float64)
    return FeatureBlock(time, np.stack([number, -0.5 * number], axis=1), np.full(n, group), number)


@settings(max_examples=200, deadline=None)
@given(st.lists(SAMPLES, min_size=1, max_size=30))
def test_samples_come_back_as_they_went_in(samples: list[Sample]) -> None:
    back = codec.decode_samples(codec.encode_samples(SampleBlock.of(samples), "s")).samples()
    assert back == samples
    assert [type(sample.value) for sample in back] == [type(sample.value) for sample in samples]


def test_a_not_a_number_stays_one() -> None:
    (back,) = codec.decode_samples(codec.encode_samples(SampleBlock.of(snapshot(1, a=math.nan)), "s")).samples()
    assert isinstance(back.value, float)
    assert math.isnan(back.value)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_bytes_that_are_no_block_are_refused(data: bytes) -> None:
    for decode in (codec.decode_samples, codec.decode_features):
        with pytest.raises(ValueError):  # noqa: PT011 - whatever the bytes, this and nothing else
            decode(data)


def test_raw_samples_are_read_by_source_tag_and_time(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        store.append_raw("a", snapshot(2, x=2.0, y=2.5), "2")
        store.append_raw("b", snapshot(1, x=9.0), None)
        store.append_raw("a", snapshot(1, x=1.0, y=1.5), None)
        store.append_raw("a", snapshot(3, x=3.0), "3")
        assert [s.value for s in store.read_raw("a", tags={"x"})] == [1.0, 2.0, 3.0]
        assert [s.value for s in store.read_raw("a", since=2 * SECOND, until=3 * SECOND)] == [2.0, 2.5]
        assert [raw.source for raw in store.raw_blocks(0)] == ["a", "b", "a", "a"]
        assert [raw.id for raw in store.raw_blocks(2)] == [3, 4]
        assert (store.cursor("a"), store.cursor("b"), store.cursor("c")) == ("3", None, None)


WRITER = """
import sys
from pathlib import Path
from gateway.store import Store
from tests.gateway.plants import snapshot
store = Store.open(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    store.append_raw("press", snapshot(number, x=float(number)), str(number))
    print(number, flush=True)
"""


def test_every_acknowledged_batch_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) >= 50:
                writer.kill()
                break
        acknowledged = [int(line), *map(int, writer.stdout.read().split())][-1]
    with Store.open(path) as store:
        kept = [sample.value for sample in store.read_raw("press")]
        assert kept == [float(i + 1) for i in range(len(kept))]
        assert len(kept) >= acknowledged
        assert store.cursor("press") == str(len(kept))  # samples and cursor in one transaction


@pytest.mark.clause("9.4.1.1d")
def test_raw_features_and_results_are_kept_apart(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        store.append_raw("a", snapshot(1, x=1.0), "1")
        store.declare("m1", RECIPE)
        store.append_features("m1", block(0, 5))
        store.append_results([Result(7, "wear", "3", "m1", "00ff", {"prediction": [1.5]})])
        assert store.counts() == {"raw": {"a": 1}, "features": {"m1": 5}, "results": {"wear": 1}}
        store.forget_features("m1")
        assert store.counts() == {"raw": {"a": 1}, "features": {}, "results": {"wear": 1}}
        assert store.results(end="m1") == [Result(7, "wear", "3", "m1", "00ff", {"prediction": [1.5]})]
        assert store.results(since=8) == store.results(end="m2") == []
    tables = sqlite3.connect(tmp_path / "store.db").execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    assert {"raw", "feature", "result"} <= {name for (name,) in tables}


def test_features_are_read_in_another_process_while_they_grow(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    read = "import sys; from pathlib import Path; from gateway.store import Store; "
    read += "print(len(Store.open(Path(sys.argv[1]), read_only=True).features('m1').time))"
    with Store.open(path) as store:
        store.declare("m1", RECIPE)
        store.append_features("m1", block(0, 5))
        first = subprocess.check_output([sys.executable, "-c", read, str(path)])
        store.append_features("m1", block(5, 5))
        with Store.open(path, read_only=True) as reader:
            assert (int(first), len(reader.features("m1").time)) == (5, 10)
            with pytest.raises(StoreError, match="FF-STORE-004"):
                reader.append_features("m1", block(10, 1))


def test_many_small_blocks_become_few_and_read_the_same(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        store.declare("m1", RECIPE)
        for i in range(200):
            store.append_features("m1", block(i, 1))
        rows = store.features("m1")
        assert rows.time.tolist() == list(range(200))
        np.testing.assert_array_equal(rows.x[:, 1], -0.5 * rows.time)
        assert store.latest("m1", 3).time.tolist() == [197, 198, 199]
        assert len(store.latest("m1", 999).time) == 200
    (blocks,) = sqlite3.connect(tmp_path / "store.db").execute("SELECT count(*) FROM feature").fetchone()
    assert blocks < 64


def test_what_remains_is_known_once_a_later_run_was_seen(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        store.declare("m1", RECIPE)
        store.append_features("m1", block(0, 16, group=1))
        assert np.isnan(store.features("m1").label).all()
        store.append_features("m1", block(20, 2, group=2))
        labels = store.features("m1").label
        assert labels[:16].tolist() == [10, 10, 10, 10, 10, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
        assert np.isnan(labels[16:]).all()
        np.testing.assert_array_equal(store.latest("m1", 4).label, labels[-4:])


def test_another_recipe_drops_the_rows_and_the_progress(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        assert store.declare("m1", RECIPE) == Progress()
        store.append_features("m1", block(0, 5))
        store.save_progress({"m1": Progress(9, "state")})
        assert store.declare("m1", RECIPE) == Progress(9, "state")
        assert store.declare("m1", Recipe("two", ("a",), Labelling("field"))) == Progress()
        assert store.features("m1").x.shape == (0, 1)


def test_stores_of_others_and_of_the_future_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    Store.open(path).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
        database.execute("DELETE FROM tally WHERE name = 'schema'")
    with pytest.raises(StoreError, match="has schema 99"):
        Store.open(path)
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as database:
        database.execute("CREATE TABLE mine (x)")
    with pytest.raises(StoreError, match="not a store of fedfab"):
        Store.open(foreign)
    with pytest.raises(StoreError, match="FF-STORE-004"):
        Store.open(tmp_path / "absent.db", read_only=True)


def test_there_is_one_writer(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db"), pytest.raises(StoreError, match="FF-STORE-001"):
        Store.open(tmp_path / "store.db")
    Store.open(tmp_path / "store.db").close()


def test_rows_of_an_unknown_end_are_refused(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store, pytest.raises(StoreError, match='no end "m9"'):
        store.features("m9")


def test_an_end_that_nothing_is_prepared_for_has_no_newest_rows(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        assert len(store.latest("m9", 3).time) == 0
        store.declare("m9", RECIPE)
        assert store.latest("m9", 3).x.shape == (0, 2)
