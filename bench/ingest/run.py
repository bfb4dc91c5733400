"""The real daemon fed by foreign servers: what is offered and what lies in the durable store, and what that costs.

    .venv/bin/python -m bench.ingest.run [--seconds 10] [--only opcua-5000 ...]

Result: bench/ingest/results/ingest.json and a table. Needs what `make servers` installs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from rich.console import Console
from rich.table import Table

from bench.ingest import plants
from bench.ingest.process import Daemon, Usage
from bench.ingest.watch import Watch
from tests.servers.modbus import ModbusServer
from tests.servers.opcua import OpcUaServer
from tests.servers.process import LineServer

ROOT = Path(__file__).parents[2]
WARM_S = 3.0
PATIENCE_S = 20.0

Row = dict[str, object]


def opcua(rate: int, ends: int = 0) -> Callable[[float], Row]:
    """``rate`` tags that change once a second each; with ``ends`` of ten fields, a feature row a second for each, too."""

    def measure(seconds: float) -> Row:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            server = stack.enter_context(OpcUaServer(folder, tags=rate))
            plants.opcua(folder, server.endpoint, rate, ends=ends)
            daemon = stack.enter_context(Daemon(folder))
            watch = stack.enter_context(Watch(folder / "data" / "store.db"))
            if not watch.until(rate, PATIENCE_S):
                raise SystemExit(f"the first values did not come:\n{daemon.log()}")
            server.run(rate)
            row = _measured(daemon, watch, seconds)
            changes = server.halt()
            watch.until(rate + changes, PATIENCE_S)
            lost, doubled = watch.lost_and_doubled(rate, changes)
            row |= {"offered": changes, "stored": watch.stored - rate, "lost": lost, "doubled": doubled}
            stack.pop_all().close()
        if not ends:
            row["bare_us"] = _bare_opcua(rate, seconds)
        return row

    return measure


def modbus(registers: int, every_s: float, ends: int = 0) -> Callable[[float], Row]:
    """``registers`` polled every ``every_s``."""

    def measure(seconds: float) -> Row:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            server = stack.enter_context(ModbusServer(folder))
            plants.modbus(folder, server.port, registers, every_s, ends=ends)
            daemon = stack.enter_context(Daemon(folder))
            watch = stack.enter_context(Watch(folder / "data" / "store.db"))
            watch.until(registers, PATIENCE_S)
            before, began = watch.stored, time.monotonic()
            row = _measured(daemon, watch, seconds)
            polls = round((time.monotonic() - began) / every_s)
            stored = watch.stored - before
            row |= {"offered": polls * registers, "stored": stored, "lost": max(0, polls * registers - stored)}
            row["doubled"] = 0
            row["bare_us"] = _bare(["modbus", str(server.port), str(registers), str(every_s)], seconds)
        return row

    return measure


CASES: dict[str, Callable[[float], Row]] = {
    "opcua-1000": opcua(1000),
    "opcua-5000": opcua(5000),
    "opcua-10000": opcua(10_000),
    "opcua-20000": opcua(20_000),
    "opcua-1000-ends-100": opcua(1000, ends=100),
    "opcua-5000-ends-500": opcua(5000, ends=500),
    "modbus-1000-1s": modbus(1000, 1.0),
    "modbus-10000-1s": modbus(10_000, 1.0),
    "modbus-1000-0.1s": modbus(1000, 0.1),
    "modbus-10000-0.1s": modbus(10_000, 0.1),
    "modbus-1000-1s-ends-100": modbus(1000, 1.0, ends=100),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    rows: list[Row] = []
    for name in options.only:
        rows.append({"case": name, **CASES[name](options.seconds)})
        Console(stderr=True).print(rows[-1], highlight=False)
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    summary = {"cores": os.cpu_count(), "load": os.getloadavg(), "seconds": options.seconds, "rows": rows}
    (folder / "ingest.json").write_text(json.dumps(summary, indent=1))
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(*columns)
    for row in rows:
        table.add_row(*(str(row.get(key, "")) for key in columns))
    Console(width=200).print(table)


def _measured(daemon: Daemon, watch: Watch, seconds: float) -> Row:
    time.sleep(WARM_S)
    watch.forget_latencies()
    rows, values, before = watch.rows(), watch.stored, daemon.usage()
    time.sleep(seconds)
    after, values = daemon.usage(), watch.stored - values
    latency = watch.latencies_ms()
    return {
        "values_per_s": round(values / (after.wall_s - before.wall_s)),
        "rows_per_s": round((watch.rows() - rows) / (after.wall_s - before.wall_s)),
        "core": f"{_core(before, after):.1%}",
        "cpu_us": round(1e6 * (after.cpu_s - before.cpu_s) / max(1, values), 1),
        "rss_mb": round(after.rss_mb),
        "uss_mb": round(after.uss_mb),
        "latency_ms": latency["p50"],
        "p99_ms": latency["p99"],
    }


def _core(before: Usage, after: Usage) -> float:
    return (after.cpu_s - before.cpu_s) / (after.wall_s - before.wall_s)


def _bare_opcua(rate: int, seconds: float) -> float:
    with TemporaryDirectory() as folder, OpcUaServer(Path(folder), tags=rate) as server:
        return _bare(["opcua", server.endpoint, str(rate)], seconds, lambda: server.run(rate))


def _bare(arguments: list[str], seconds: float, start: Callable[[], None] = lambda: None) -> float:
    """CPU-µs for each value that the library alone brings."""
    peer = LineServer([sys.executable, "-m", "bench.ingest.bare", *arguments], ROOT)
    try:
        start()
        seen = psutil.Process(peer.pid)
        time.sleep(WARM_S)
        values, before = int(peer.ask("")), seen.cpu_times()
        time.sleep(seconds)
        values, after = int(peer.ask("")) - values, seen.cpu_times()
        return round(1e6 * (after.user + after.system - before.user - before.system) / max(1, values), 1)
    finally:
        peer.kill()


if __name__ == "__main__":
    main()
