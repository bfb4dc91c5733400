"""The gateway with nothing to do: how soon it is READY, what it weighs, what it uses while nothing happens.

    .venv/bin/python -m bench.idle.run [--starts 7] [--seconds 10]

Result: bench/idle/results/idle.json and a table. Medians; CPU seconds to READY are steadier than wall time on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from bench.ingest import plants
from bench.ingest.process import Daemon


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=10.0, help="of idleness, after the last start")
    options = parser.parse_args()
    walls, cpus, rss, uss = [], [], [], []
    with TemporaryDirectory() as name:
        folder = Path(name)
        plants.idle(folder)
        for start in range(options.starts):
            with Daemon(folder) as daemon:
                walls.append(daemon.ready_s)
                cpus.append(daemon.ready_cpu_s)
                time.sleep(2.0)  # what is done right after READY belongs to the start
                before = daemon.usage()
                rss.append(before.rss_mb)
                uss.append(before.uss_mb)
                if start == options.starts - 1:
                    time.sleep(options.seconds)
                    after = daemon.usage()
                    children_mb = daemon.children_mb()
    row = {
        "ready_s": round(statistics.median(walls), 2),
        "ready_best_s": round(min(walls), 2),
        "ready_cpu_s": round(statistics.median(cpus), 2),
        "rss_mb": round(statistics.median(rss)),
        "uss_mb": round(statistics.median(uss)),
        "children_mb": round(children_mb),
        "idle_core": f"{(after.cpu_s - before.cpu_s) / (after.wall_s - before.wall_s):.2%}",
    }
    target = Path(__file__).parent / "results" / "idle.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({"cores": os.cpu_count(), "load": os.getloadavg(), "starts": walls, **row}, indent=1))
    table = Table(*row)
    table.add_row(*map(str, row.values()))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
