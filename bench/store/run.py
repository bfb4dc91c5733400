"""What it costs to keep values durably: fedfab's store beside other ways to keep the same, in one run.

Every contender is told of a batch, keeps it and has it on the disk before it takes the next. ``--power N``: N simulated power cuts.
``--damage N``: N stores with flipped bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2]))
from connectors.contract import Quality, Sample
from gateway.blocks import FeatureBlock, SampleBlock
from gateway.config.store import StoreOptions
from gateway.store import Labelling, RawBatch, Recipe, Store, codec
from gateway.store.upkeep import Upkeep

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
S = 10**9
TAGS = [f"machine-{i // 10}.value-{i % 10}" for i in range(100)]


def samples(n: int, count: int, seed: int = 0) -> list[list[Sample]]:
    """``count`` batches of ``n`` samples of 100 tags, as a connector gives them."""
    chance = random.Random(seed)
    return [
        [
            Sample(
                TAGS[i % 100],
                chance.gauss(20, 5),
                Quality.GOOD,
                1_795_000_000 * S + b * S + i * 1000,
                1_795_000_000 * S + b * S + i * 1000 + 700_000,
            )
            for i in range(n)
        ]
        for b in range(count)
    ]


def measured(batches: int, values: int, keep: Callable[[int], None], folder: Path) -> dict[str, Any]:
    """Wall and CPU time of keeping so many batches one after the other."""
    times = []
    cpu, began = time.process_time(), time.perf_counter()
    for number in range(batches):
        at = time.perf_counter()
        keep(number)
        times.append(time.perf_counter() - at)
    wall = time.perf_counter() - began
    cpu = time.process_time() - cpu
    return {
        "values_per_s": round(values / wall),
        "cpu_us_per_value": round(cpu / values * 1e6, 2),
        "values_per_cpu_s": round(values / cpu),
        "bytes_per_value": round(sum(each.stat().st_size for each in folder.rglob("*") if each.is_file()) / values, 1),
        "commit_p50_ms": round(statistics.median(times) * 1e3, 2),
        "commit_p99_ms": round(sorted(times)[int(len(times) * 0.99)] * 1e3, 2),
    }


def fedfab(folder: Path, data: list[list[Sample]], sources: int = 1, columns: bool = False) -> dict[str, Any]:
    """One commit for a batch of each of so many sources."""
    given = [SampleBlock.of(batch) for batch in data] if columns else data
    with Store.open(folder / "store.db") as store:

        def keep(number: int) -> None:
            batch = given[number * sources : (number + 1) * sources]
            store.append_raw_many([RawBatch(f"s{i}", each, str(number)) for i, each in enumerate(batch)])

        return measured(len(data) // sources, sum(map(len, data)), keep, folder)


def sqlite_rows(folder: Path, data: list[list[Sample]]) -> dict[str, Any]:
    """A row for each sample, WAL, synchronous=FULL."""
    db = sqlite3.connect(folder / "rows.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE raw (tag TEXT, value REAL, quality INTEGER, source_time INTEGER, gateway_time INTEGER)")

    def keep(number: int) -> None:
        db.execute("BEGIN")
        db.executemany("INSERT INTO raw VALUES (?, ?, ?, ?, ?)", data[number])
        db.execute("COMMIT")

    found = measured(len(data), sum(map(len, data)), keep, folder)
    db.close()
    return found


def _columns(batch: list[Sample]) -> dict[str, Any]:
    tag, value, quality, source_time, gateway_time = zip(*batch, strict=True)
    return {
        "tag": np.array(tag, object),
        "value": np.array(value),
        "quality": np.array(quality, np.int32),
        "source_time": np.array(source_time, np.int64),
        "gateway_time": np.array(gateway_time, np.int64),
    }


def duckdb_rows(folder: Path, data: list[list[Sample]]) -> dict[str, Any]:
    """A table of DuckDB, one transaction for each batch, out of numpy columns."""
    import duckdb

    db = duckdb.connect(str(folder / "rows.duckdb"))
    db.execute("CREATE TABLE raw (tag VARCHAR, value DOUBLE, quality INTEGER, source_time BIGINT, gateway_time BIGINT)")

    def keep(number: int) -> None:
        db.register("chunk", _columns(data[number]))
        db.execute("INSERT INTO raw SELECT * FROM chunk")

    found = measured(len(data), sum(map(len, data)), keep, folder)
    db.close()
    return found


def parquet_files(folder: Path, data: list[list[Sample]]) -> dict[str, Any]:
    """A Parquet file for each batch (written by DuckDB), synchronised with its folder."""
    import duckdb

    db = duckdb.connect()
    handle = os.open(folder, os.O_RDONLY)

    def keep(number: int) -> None:
        place = folder / f"{number}.parquet"
        db.register("chunk", _columns(data[number]))
        db.execute(f"COPY (SELECT * FROM chunk) TO '{place}' (FORMAT parquet)")
        with place.open("rb") as file:
            os.fsync(file.fileno())
        os.fsync(handle)

    return measured(len(data), sum(map(len, data)), keep, folder)


def lmdb_blocks(folder: Path, data: list[list[Sample]]) -> dict[str, Any]:
    """LMDB with fedfab's own blocks as values, one synchronised transaction for each."""
    import lmdb

    env = lmdb.open(str(folder), map_size=2**33)

    def keep(number: int) -> None:
        with env.begin(write=True) as db:
            db.put(number.to_bytes(8, "big"), codec.encode_samples(SampleBlock.of(data[number]), "s0"))

    found = measured(len(data), sum(map(len, data)), keep, folder)
    env.close()
    return found


def features(folder: Path, rows: int, count: int, fields: int = 50) -> dict[str, Any]:
    """Feature rows of 50 columns with a durable batch of raw samples between, as they come in a running gateway."""
    chance = np.random.default_rng(0)
    x = chance.normal(size=(rows, fields))
    zeros = np.zeros(rows)
    with Store.open(folder / "store.db") as store:
        store.declare("m1", Recipe("d", tuple(f"f{i}" for i in range(fields)), Labelling("field")))

        def keep(number: int) -> None:
            time_ = np.arange(number * rows, (number + 1) * rows, dtype=np.int64)
            store.append_all_features({"m1": FeatureBlock(time_, x, zeros, zeros)}, number)
            store.append_raw("s0", [Sample("x", 1.0, Quality.GOOD, number, number)], None)

        return measured(count, rows * count * fields, keep, folder)


def latest(folder: Path, ends: int = 20, window: int = 30) -> dict[str, Any]:
    """Microseconds for the newest 30 rows of an end of 50 columns, while rows come in."""
    recipe = Recipe("d", tuple(f"f{i}" for i in range(50)), Labelling("field"))
    with Store.open(folder / "store.db") as store:
        for end in range(ends):
            store.declare(f"m{end}", recipe)
            rows = np.arange(5000, dtype=np.int64)
            store.append_features(f"m{end}", FeatureBlock(rows, np.zeros((5000, 50)), np.zeros(5000), np.zeros(5000)))
        cold, warm = [], []
        for number in range(200):
            if number:
                row = np.array([5000 + number], np.int64)
                block = FeatureBlock(row, np.zeros((1, 50)), np.zeros(1), np.zeros(1))
                store.append_all_features({f"m{end}": block for end in range(ends)}, number)
            for end in range(ends):
                at = time.perf_counter()
                found = store.latest(f"m{end}", window)
                (warm if number else cold).append(time.perf_counter() - at)
                assert len(found.time) == window
    return {
        "first_us": round(statistics.median(cold) * 1e6),
        "p50_us": round(statistics.median(warm) * 1e6, 1),
        "p99_us": round(sorted(warm)[int(len(warm) * 0.99)] * 1e6, 1),
    }


def upkeep(folder: Path, seconds: float) -> dict[str, Any]:
    """How long appends take beside upkeep that drops, merges and vacuums, and without it."""
    import threading

    found = {}
    for name in ("alone", "beside upkeep"):
        place = folder / name.replace(" ", "-")
        place.mkdir()
        with Store.open(place / "store.db") as store:
            keeper = Upkeep(store, StoreOptions.model_validate({"keep_free_gb": 0, "raw": {"max_gb": 0.001}}), [])
            done = threading.Event()

            def tending(keeper: Upkeep = keeper, done: threading.Event = done) -> None:
                while not done.wait(0.2):
                    keeper.tend()

            worker = threading.Thread(target=tending)
            data, times = samples(100, 100), []
            for _ in range(12):
                store.append_raw_many([RawBatch("s0", batch) for batch in data])
            if name != "alone":
                worker.start()
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                at = time.perf_counter()
                store.append_raw("s0", data[len(times) % 100], None)
                times.append(time.perf_counter() - at)
            done.set()
            if name != "alone":
                worker.join()
            times.sort()
            found[name] = {
                "appends": len(times),
                "p50_ms": round(statistics.median(times) * 1e3, 2),
                "p99_ms": round(times[int(len(times) * 0.99)] * 1e3, 2),
                "worst_ms": round(times[-1] * 1e3, 1),
                "dropped": sum(each.dropped_entries for each in store.amounts()["raw"].values()),
                "merged": keeper.merges,
                "file_mb": round(store.file.size() / 1e6, 1),
            }
    return found


def power(cuts: int) -> dict[str, Any]:
    """Simulated power cuts; see tests/gateway/store/powerloss.py."""
    from tests.gateway.store import MEMORY, powerloss
    from tests.gateway.store import test_powerloss as lost

    with (
        tempfile.TemporaryDirectory() as busy,
        tempfile.TemporaryDirectory() as work,
        tempfile.TemporaryDirectory(dir=MEMORY) as memory,
    ):
        command = [sys.executable, "-m", "tests.gateway.store.plant", busy, str(lost.BATCHES)]
        trace = powerloss.record(command, Path(busy), Path(work))
        began, done = time.monotonic(), 0
        while done < cuts:
            lost.cuts(trace, min(500, cuts - done), 1000 + done, Path(memory))
            done += min(500, cuts - done)
    return {"cuts": cuts, "events": len(trace), "lost": 0, "seconds": round(time.monotonic() - began, 1)}


def damage(stores: int) -> dict[str, Any]:
    """Stores with up to three flipped bytes; see tests/gateway/store/test_damage.py."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/gateway/store/test_damage.py",
        "-k",
        "whatever_byte",
    ]
    began = time.monotonic()
    subprocess.run(command, cwd=ROOT, env=os.environ | {"FEDFAB_DAMAGE_EXAMPLES": str(stores)}, check=True)
    return {"stores": stores, "lost in silence": 0, "seconds": round(time.monotonic() - began, 1)}


def with_lmdb() -> bool:
    """Whether LMDB can be had, in an environment of its own."""
    folder = Path(tempfile.gettempdir()) / "fedfab-bench-lmdb"
    if not folder.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin" / "pip", "install", "-q", "lmdb"], check=False, capture_output=True)
    sys.path += [str(each) for each in folder.glob("lib/*/site-packages")]
    try:
        import lmdb  # noqa: F401
    except ImportError:
        return False
    return True


def contenders(n: int, data: list[list[Sample]]) -> Iterator[tuple[str, Callable[[Path], dict[str, Any]]]]:
    yield "fedfab, one source", lambda folder: fedfab(folder, data)
    yield "fedfab, one source, columns", lambda folder: fedfab(folder, data, 1, True)
    yield "fedfab, 8 sources a commit", lambda folder: fedfab(folder, data, 8)
    yield "fedfab, 8 sources a commit, columns", lambda folder: fedfab(folder, data, 8, True)
    yield "SQLite, a row a sample", lambda folder: sqlite_rows(folder, data)
    yield "DuckDB", lambda folder: duckdb_rows(folder, data)
    yield "Parquet, a file a batch", lambda folder: parquet_files(folder, data)
    if with_lmdb():
        yield "LMDB, fedfab's blocks", lambda folder: lmdb_blocks(folder, data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, default=200_000, help="values of each run")
    parser.add_argument("--seconds", type=float, default=10, help="of appends beside upkeep")
    parser.add_argument("--power", type=int, default=0, help="simulated power cuts")
    parser.add_argument("--damage", type=int, default=0, help="stores with flipped bytes")
    parser.add_argument("--folder", type=Path, default=None, help="where files are made: the disk that is measured")
    options = parser.parse_args()
    found: dict[str, Any] = {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
    console = Console()

    def fresh() -> Path:
        return Path(tempfile.mkdtemp(prefix="fedfab-bench-", dir=options.folder))

    if options.power or options.damage:
        if options.power:
            found["power"] = power(options.power)
        if options.damage:
            found["damage"] = damage(options.damage)
        console.print_json(data=found)
        (HERE / "results" / "safety.json").write_text(json.dumps(found, indent=1))
        return
    for n in (100, 1000):
        data = samples(n, options.values // n // 8 * 8)
        table = Table(f"{n} samples a batch", "values/s", "CPU-µs/value", "bytes/value", "commit p50, ms", "p99")
        for name, run in contenders(n, data):
            folder = fresh()
            row = found.setdefault(f"raw {n}", {})[name] = run(folder)
            shutil.rmtree(folder)
            table.add_row(
                name,
                f"{row['values_per_s']:,}",
                *(str(row[key]) for key in ("cpu_us_per_value", "bytes_per_value", "commit_p50_ms", "commit_p99_ms")),
            )
        console.print(table)
    for name, run_one in {
        "features 1 row": lambda folder: features(folder, 1, 500),
        "features 1000 rows": lambda folder: features(folder, 1000, 40),
        "latest": latest,
        "upkeep": lambda folder: upkeep(folder, options.seconds),
    }.items():
        folder = fresh()
        found[name] = run_one(folder)
        shutil.rmtree(folder)
        console.print(name, found[name])
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "store.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
