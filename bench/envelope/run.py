"""Throughput of envelopes and blobs beside what they are made of: the raw cipher and the digest of the same provider.

Wall time says what a free machine gives, with its cores; CPU time says what the work costs, also where others work beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2]))
from trust import pki
from trust.blob import open_blob, seal_blob
from trust.envelope import Header, seal, unseal
from trust.identity import Identity
from trust.keys import SuiteName
from trust.suite import providers, suite

HERE = Path(__file__).parent
SIZES = [64 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    quick = parser.parse_args().quick
    rows = [row for name in ("gm", "intl") for row in measure(name, quick=quick)]
    result = {"providers": providers(), "cores": len(os.sched_getaffinity(0)), "rows": rows}
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "envelope.json").write_text(json.dumps(result, indent=1))
    show(result)


def measure(name: SuiteName, *, quick: bool) -> list[dict[str, object]]:
    """Median seconds of wall and CPU per size and column, the columns in turn so that a slow moment hits all alike."""
    with tempfile.TemporaryDirectory() as folder:
        pki.init(Path(folder), [name], "bench")
        path = pki.issue(Path(folder), pki.Request("a", "gateway", "bench"))
        identity = Identity.load(path, name)
    rows: list[dict[str, object]] = []
    for size in SIZES:
        runs = _runs(identity, size)
        budget_s = 1.0 if quick else 6.0
        times: dict[str, list[float]] = {column: [] for column in runs}
        work: dict[str, list[float]] = {column: [] for column in runs}
        started = time.perf_counter()
        while len(times["seal"]) < 5 or time.perf_counter() - started < budget_s:
            for column, run in runs.items():
                begin, worked = time.perf_counter(), time.process_time()
                run()
                times[column].append(time.perf_counter() - begin)
                work[column].append(time.process_time() - worked)
        wall, cpu = ({c: statistics.median(t) for c, t in taken.items()} for taken in (times, work))
        rows.append({"suite": name, "bytes": size, "wall_s": wall, "cpu_s": cpu})
    return rows


def _runs(identity: Identity, size: int) -> dict[str, Callable[[], object]]:
    algorithms = suite(identity.peer.suite)
    key, nonce, body, out = os.urandom(algorithms.key_bytes), bytes(12), os.urandom(size), bytearray(size + 16)
    header = Header("i", "t", "k", "a", "a", 1, 1, identity.peer.suite)
    sealed = seal(identity, identity.peer, header, body)
    blob, manifest = seal_blob(algorithms, body)

    def cipher() -> None:
        algorithms.encrypt_into(key, nonce, body, b"", memoryview(out))

    def digest() -> None:
        algorithms.digest(out)

    def one_core() -> None:
        cipher()
        digest()

    return {
        "cipher": cipher,
        "digest": digest,
        "one core": one_core,
        "seal": lambda: seal(identity, identity.peer, header, body),
        "unseal": lambda: unseal(identity, identity.peer, sealed),
        "seal_blob": lambda: seal_blob(algorithms, body),
        "open_blob": lambda: open_blob(manifest, blob),
    }


def show(result: dict[str, object]) -> None:
    console = Console(width=140)
    console.print(result["providers"])
    rows: list[dict[str, object]] = result["rows"]  # type: ignore[assignment]
    for clock, title in (("wall_s", f"wall time on {result['cores']} cores"), ("cpu_s", "CPU time")):
        columns = list(rows[0][clock])  # type: ignore[call-overload]
        table = Table("suite", "size", *columns, title=f"MB/s of {title}, and percent of the raw cipher")
        for row in rows:
            size, taken = row["bytes"], row[clock]
            raw = taken["cipher"]  # type: ignore[index]
            cells = [f"{size / taken[c] / 1e6:,.0f} ({100 * raw / taken[c]:.0f} %)" for c in columns]  # type: ignore[index,operator]
            table.add_row(str(row["suite"]), f"{size >> 10} KiB", *cells)  # type: ignore[operator]
        console.print(table)


if __name__ == "__main__":
    main()
