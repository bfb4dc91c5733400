"""A process that keeps a store busy in all its ways and says what was acknowledged; and what must be left of it after a power cut."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

import numpy as np

from connectors.contract import Quality, Sample
from gateway.blocks import FeatureBlock
from gateway.config.store import StoreOptions
from gateway.store import Labelling, Progress, Recipe, Result, Store
from gateway.store.upkeep import Upkeep

RECIPE = Recipe("one", ("a", "b"), Labelling("field"))
BOUNDS = StoreOptions.model_validate(
    {"keep_free_gb": 0, "raw": {"max_gb": 60e-6}, "features": {"max_gb": 20e-6}, "results": {"max_gb": 20e-6}}
)


@cache
def batch(number: int) -> list[Sample]:
    """What the source gave as its ``number``-th batch: mostly a little, sometimes much."""
    size = 500 if number % 97 == 0 else 4
    return [Sample("x", number + i / 100, Quality.GOOD, number * 10**9 + i, number * 10**9 + i) for i in range(size)]


def rows(number: int) -> FeatureBlock:
    """The feature row made of that batch."""
    value = np.array([float(number)])
    return FeatureBlock(np.array([number]), np.array([[number, -number]], np.float64), value, value)


def result(number: int) -> Result:
    """The prediction given with it."""
    return Result(number, "wear", "1", "m1", "00ff", {"y": [number / 7]})


def live(folder: Path, batches: int) -> None:
    """Append, prepare, predict and tend; write down each batch once the store has acknowledged it."""
    with Store.open(folder / "store.db") as store, (folder / "acknowledged").open("a", buffering=1) as said:
        store.declare("m1", RECIPE)
        upkeep = Upkeep(store, BOUNDS, ["m1"])
        for number in range(1, batches + 1):
            store.append_raw("press", batch(number), str(number))
            said.write(f"{number}\n")
            store.append_all_features({"m1": rows(number)}, number)
            store.append_results([result(number)])
            if number % 64 == 0:
                store.save_progress({"m1": Progress(number, json.dumps(number))})
                upkeep.tend()


def verify(path: Path, acknowledged: int) -> None:
    """Open what was left and compare it with what must be there. Raises AssertionError."""
    with Store.open(path) as store:
        assert store.file.renewed == 0, "the file was damaged"
        checked = store.file.maintain(lambda db: db.execute("PRAGMA integrity_check").fetchall())
        assert checked == [("ok",)], checked
        assert not store.damage()

        last = int(store.cursor("press") or 0)
        assert last >= acknowledged, f"batch {acknowledged} was acknowledged, the store ends at {last}"
        kept, after = [], 0
        while page := store.raw_blocks(after):
            kept += [sample for raw in page for sample in raw.samples().samples()]
            after = page[-1].id
        first = kept[0].source_time // 10**9 if kept else last + 1
        assert kept == [sample for number in range(first, last + 1) for sample in batch(number)]
        dropped = sum(each.dropped_entries for each in store.amounts()["raw"].values())
        assert dropped == sum(len(batch(number)) for number in range(1, first))

        times = store.latest("m1", 10**6).time.tolist()
        assert times == list(range(times[0], times[0] + len(times))) if times else True
        assert not times or times[-1] <= last
        results = store.results(limit=10**6)
        assert results == [result(each.time) for each in results]

        store.append_raw("press", batch(last + 1), str(last + 1))
        assert store.read_raw("press", since=(last + 1) * 10**9) == batch(last + 1)


if __name__ == "__main__":
    live(Path(sys.argv[1]), int(sys.argv[2]))
