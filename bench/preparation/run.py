"""CPU time from samples to the durable raw layer, and from there to feature rows, for batches of three shapes."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2]))
from connectors.contract import Quality, Sample, SourceConfig, TagConfig
from gateway.config import Config
from gateway.preparation import Preparation, rebuild
from gateway.store import Store

HERE = Path(__file__).parent
SECOND = 1_000_000_000


class Shape(NamedTuple):
    name: str
    ends: int
    features: int
    snapshots: int
    per_batch: int


SHAPES = [
    Shape("long batches of one end", 1, 14, 20_000, 1_000),
    Shape("snapshots of 10 ends", 10, 14, 1_000, 1),
    Shape("snapshots of 500 ends", 500, 8, 20, 1),
]


def main() -> None:
    rows = [measure(shape) for shape in SHAPES]
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "preparation.json").write_text(json.dumps({"cores": os.cpu_count(), "rows": rows}, indent=1))
    table = Table(
        "shape", "values", "store, CPU-µs/value", "prepare live", "rebuild", "values/s rebuilt", "checkpoint, ms"
    )
    for row in rows:
        table.add_row(*(f"{value:,.2f}" if isinstance(value, float) else f"{value}" for value in row.values()))
    Console().print(table)


def measure(shape: Shape) -> dict[str, object]:
    """CPU time of this process for one shape."""
    with tempfile.TemporaryDirectory() as folder:
        config = _config(shape, Path(folder))
        with Store.open(config.gateway.store) as store:
            live = Preparation(config, store)
            values, storing, preparing = 0, 0.0, 0.0
            for samples in _batches(shape, config.sources[0].tag_names()):
                values += len(samples)
                began = time.process_time()
                store.append_raw("plant", samples, None)
                stored = time.process_time()
                live.advance()
                storing += stored - began
                preparing += time.process_time() - stored
            began = time.process_time()
            live.checkpoint()
            checkpoint = time.process_time() - began
            began = time.process_time()
            rebuild(config, store)
            rebuilding = time.process_time() - began
    return {
        "shape": shape.name,
        "values": values,
        "store_us": storing / values * 1e6,
        "live_us": preparing / values * 1e6,
        "rebuild_us": rebuilding / values * 1e6,
        "rebuild_per_s": values / rebuilding,
        "checkpoint_ms": checkpoint * 1e3,
    }


def _config(shape: Shape, folder: Path) -> Config:
    features = [f"f{i}" for i in range(shape.features)]
    names = [*features, "cycle", "run"]
    tags = tuple(TagConfig(name=f"e{end}.{name}") for end in range(shape.ends) for name in names)
    cleaned = [{"name": name, "min": -100, "max": 100, "max_rate_per_s": 1000} for name in features]
    cluster = {
        "name": "machines",
        "rows": {"on_change": "cycle"},
        "group": "run",
        "label": {"remaining": "cycle"},
        "field": [*cleaned, {"name": "cycle", "role": "aux"}, {"name": "run", "role": "aux"}],
    }
    ends = [
        {"name": f"e{end}", "cluster": "machines", "tags": {name: f"plant/e{end}.{name}" for name in names}}
        for end in range(shape.ends)
    ]
    return Config.model_validate(
        {
            "gateway": {"name": "bench", "data_dir": folder},
            "source": [SourceConfig(name="plant", type="bench", tag=tags)],
            "cluster": [cluster],
            "end": ends,
        }
    )


def _batches(shape: Shape, tags: tuple[str, ...]) -> Iterator[list[Sample]]:
    random = np.random.default_rng(0)
    for first in range(0, shape.snapshots, shape.per_batch):
        samples = []
        for number in range(first, first + shape.per_batch):
            moment = 1_700_000_000 * SECOND + number * SECOND
            for tag, noise in zip(tags, random.normal(size=len(tags)).tolist(), strict=True):
                value = float(number) if tag.endswith("cycle") else 1.0 if tag.endswith("run") else noise
                samples.append(Sample(tag, value, Quality.GOOD, moment, moment))
        yield samples


if __name__ == "__main__":
    main()
