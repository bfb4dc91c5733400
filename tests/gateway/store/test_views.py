"""SQL over a store, and export: the same values, in bounded memory, while the store is written."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pytest

from connectors.contract import Quality, Sample
from gateway.blocks import FeatureBlock
from gateway.errors import StoreError
from gateway.store import Labelling, Recipe, Result, Store
from gateway.store.views import Span, ask, export

SECOND = 10**9
RECIPE = Recipe("one", ("vibration", "mean temp"), Labelling("remaining", cap=3.0))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "store.db"
    with Store.open(place) as store:
        values = [1.5, 7, True, None, "lot-7", 2**70, float("nan")]
        for second in range(1, 8):
            sample = Sample("x", values[second - 1], Quality(second % 3), second * SECOND, second * SECOND + 5)
            store.append_raw("press", [sample, sample._replace(tag="y", value=float(second))], None)
        store.append_raw("oven", [Sample("t", 200.0, Quality.GOOD, SECOND, SECOND)], None)
        for end in ("m1", "m2"):
            store.declare(end, RECIPE)
            time = np.arange(6, dtype=np.int64) * SECOND
            x = np.stack([time / SECOND, np.full(6, np.nan)], axis=1)
            run = np.array([1.0, 1, 1, 1, 2, 2])
            store.append_features(end, FeatureBlock(time, x, run, np.array([1.0, 2, 3, 4, 1, 2])))
        store.append_results([Result(5 * SECOND, "wear", "3", "m1", "00ff", {"y": [1.5]})])
    return place


def test_values_of_every_kind_are_seen_as_what_they_are(path: Path) -> None:
    with Store.open(path, read_only=True) as store:
        found = ask(store, "SELECT value, text, quality FROM raw WHERE tag = 'x' ORDER BY time", Span(), most=99).rows
    assert [each[:2] for each in found[:6]] == [
        (1.5, None),
        (7.0, None),
        (1.0, None),
        (None, None),
        (None, "lot-7"),
        (2.0**70, str(2**70)),
    ]
    assert found[6][0] is None
    assert [each[2] for each in found[:3]] == ["uncertain", "bad", "good"]


@pytest.mark.clause("9.4.1.1d")
def test_all_layers_can_be_asked_together_while_the_store_is_written(path: Path) -> None:
    query = (
        "SELECT f.end_name, f.vibration, f.label, r.outputs FROM features f LEFT JOIN results r"
        " ON r.end_name = f.end_name AND r.time = f.time ORDER BY f.end_name, f.time"
    )
    with Store.open(path) as writer, Store.open(path, read_only=True) as store:
        writer.append_raw("press", [Sample("x", 1.0, Quality.GOOD, 0, 0)], None)
        found = ask(store, query, Span(), most=99)
        labels = np.nan_to_num(store.features("m1").label, nan=-1).tolist()
        assert ask(store, "SELECT count(*) FROM raw", Span(), most=1).rows == [(16,)]
        assert ask(store, "SELECT count(*) AS n FROM features_m2", Span(names=("m2",)), most=1).rows == [(6,)]
    assert found.columns == ("end_name", "vibration", "label", "outputs")
    assert [-1 if row[2] is None else row[2] for row in found.rows[:6]] == labels == [3, 2, 1, 0, -1, -1]
    assert [row[3] for row in found.rows[:6]] == [None] * 5 + ['{"y": [1.5]}']


def test_only_what_is_asked_for_is_decoded(path: Path) -> None:
    with Store.open(path, read_only=True) as store:
        rows: list[int] = []
        span = Span(since=2 * SECOND, until=4 * SECOND, names=("press",))
        found = ask(store, "SELECT DISTINCT time FROM raw ORDER BY time", span, most=1, progress=rows.append)
        assert sum(rows) == 4
        assert (found.rows[0][0], found.more) == (datetime(1970, 1, 1, 0, 0, 2), True)


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM raw",
        "SELECT 1; SELECT 2",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM nothing",
        "COPY raw TO '/tmp/x.csv'",
        "SELEC",
    ],
)
def test_sql_reads_the_store_and_nothing_else(path: Path, query: str) -> None:
    with Store.open(path, read_only=True) as store, pytest.raises(StoreError, match="FF-STORE-011"):
        ask(store, query, Span(), most=9)


def test_an_export_has_names_units_and_all_values(path: Path, tmp_path: Path) -> None:
    units = {"m1": {"vibration": "mm/s"}, "m2": {"vibration": "mm/s"}, "press": {"x": "bar"}}
    with Store.open(path, read_only=True) as store:
        written = export(store, "features", tmp_path / "out", "parquet", Span(), units=units)
        assert {place.name: rows for place, rows in written.items()} == {
            "features_m1.parquet": 6,
            "features_m2.parquet": 6,
        }
        one = tmp_path / "out" / "features_m1.parquet"
        metadata = dict(duckdb.execute(f"SELECT key, value FROM parquet_kv_metadata('{one}')").fetchall())
        assert json.loads(metadata[b"units"]) == {"vibration": "mm/s"}
        found = duckdb.execute(f'SELECT vibration, "mean temp", "group" FROM \'{one}\' ORDER BY time').fetchall()
        assert found == [(float(i), None, 1.0 if i < 4 else 2.0) for i in range(6)]
        with pytest.raises(StoreError, match="FF-STORE-010"):
            export(store, "features", one, "parquet", Span(names=("m1",)))
        text = tmp_path / "raw.csv"
        assert export(store, "raw", text, "csv", Span(names=("oven",))) == {text: 1}
        assert text.read_text().splitlines() == [
            "source,tag,time,value,text,quality,arrived",
            "oven,t,1970-01-01 00:00:01,200.0,,good,1970-01-01 00:00:01",
        ]
        assert export(store, "results", tmp_path, "csv", Span()) == {tmp_path / "results.csv": 1}


def test_the_daemon_does_not_carry_duckdb() -> None:
    code = "import sys, gateway.daemon, gateway.store.views; sys.exit('duckdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
