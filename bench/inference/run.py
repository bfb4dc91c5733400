"""On-line predictions per second, beside the bare runtime, a bare handler, an echo and MLServer, all in one run.

The contestants take turns, several times, on one machine: read ratios and medians. MLServer (from PyPI) gets an environment of its own
under ``~/.cache/fedfab-bench``; ``--no-mlserver`` leaves it out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import orjson
import psutil
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench.inference.servers import FIELDS, SCHEMA, SECRET, SPEC
from models.export import export
from models.parameters import initial

HERE = Path(__file__).parent
CACHE = Path.home() / ".cache" / "fedfab-bench" / "mlserver"
PACKAGES = ("mlserver>=1.7,<2", "uvloop<0.22", "onnxruntime>=1.20", "numpy")
CASES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "echo": ("echo", "row", ()),
    "bare aiohttp + onnxruntime": ("bare", "row", ()),
    "fedfab": ("fedfab", "row", ()),
    "fedfab, nothing recorded": ("fedfab-unrecorded", "row", ()),
    "fedfab, signed": ("fedfab-signed", "row", ("--secret", SECRET)),
    "fedfab, binary": ("fedfab", "binary", ()),
    "fedfab, latest window": ("fedfab", "latest", ()),
    "MLServer": ("mlserver", "row", ()),
    "bare, 256 rows": ("bare", "rows", ()),
    "fedfab, 256 rows": ("fedfab", "rows", ()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--no-mlserver", action="store_true")
    parser.add_argument("--only", default="", help="cases whose name has this regular expression")
    options = parser.parse_args()
    cases = {name: case for name, case in CASES.items() if re.search(options.only, name)}
    if options.no_mlserver:
        cases.pop("MLServer", None)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(export(SPEC, SCHEMA, initial(SPEC, [SCHEMA]), {}))
        headers = bodies(folder)
        raw = [float(_python("servers.py", "raw", folder)) for _ in range(options.repeats)]
        kinds = dict.fromkeys(kind for kind, _, _ in cases.values())
        servers = {
            kind: stack.enter_context(mlserver(folder) if kind == "mlserver" else own(kind, folder)) for kind in kinds
        }
        found: dict[str, list[dict[str, float]]] = {case: [] for case in cases}
        for _ in range(options.repeats):
            for case, (kind, body, more) in cases.items():
                url, process = servers[kind]
                call = [url, folder / body, "--headers", headers.get(body, "{}"), "--connections", options.connections]
                found[case].append(measure(process, [*map(str, call), *more], options.seconds))
    rows = [
        {"case": case, **{key: statistics.median(r[key] for r in runs) for key in runs[0]}}
        for case, runs in found.items()
    ]
    report(rows, statistics.median(raw), found, options)


def measure(process: psutil.Process, call: list[str], seconds: float) -> dict[str, float]:
    """Full load, then half of what it reached."""
    _python("load.py", *call, "--seconds", 0.3)
    before, started = cpu_s(process), time.perf_counter()
    full = json.loads(_python("load.py", *call, "--seconds", seconds))
    used = cpu_s(process) - before
    rate = full["count"] / seconds
    half = json.loads(_python("load.py", *call, "--seconds", seconds, "--rate", rate / 2))
    return {
        "requests_per_s": rate,
        "cpu_us": used / full["count"] * 1e6,
        "requests_per_cpu_s": full["count"] / used,
        "p50_ms": full["p50"] * 1e3,
        "p99_ms": full["p99"] * 1e3,
        "half_p50_ms": half["p50"] * 1e3,
        "half_p99_ms": half["p99"] * 1e3,
        "rss_mb": process.memory_info().rss / 1e6,
        "wall_s": time.perf_counter() - started,
    }


def bodies(folder: Path) -> dict[str, str]:
    """The requests as files; gives the headers that some of them need, as JSON."""
    rng = np.random.default_rng(0)
    for name, n in (("row", 1), ("rows", 256)):
        x = rng.normal(size=(n, 1, FIELDS)).astype(np.float32)
        tensor = {"name": "window", "shape": x.shape, "datatype": "FP32", "data": x.reshape(-1)}
        (folder / name).write_bytes(orjson.dumps({"inputs": [tensor]}, option=orjson.OPT_SERIALIZE_NUMPY))
    (folder / "latest").write_bytes(b'{"parameters": {"end": "end"}}')
    x = rng.normal(size=(1, 1, FIELDS)).astype(np.float32)
    tensor = {"name": "window", "shape": x.shape, "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    (folder / "binary").write_bytes(head + x.tobytes())
    return {"binary": json.dumps({"Inference-Header-Content-Length": str(len(head))})}


@contextmanager
def own(kind: str, folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A server of ours: its URL and process."""
    command = [sys.executable, HERE / "servers.py", kind, folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        if not url:
            sys.exit(f"{kind} does not start")
        yield url, psutil.Process(server.pid)
        server.stdin.close()
    if server.returncode:
        sys.exit(f"{kind} failed")


@contextmanager
def mlserver(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """MLServer with the model in its own process, as it is quickest: no worker, no metrics, no log of requests."""
    if not (CACHE / "bin/mlserver").exists():
        subprocess.run([sys.executable, "-m", "venv", CACHE], check=True)
        subprocess.run([CACHE / "bin/pip", "install", "-q", *PACKAGES], check=True)
    home = folder / "mlserver"
    home.mkdir()
    http, grpc, metrics = _ports(3)
    settings = {
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "host": "127.0.0.1",
        "parallel_workers": 0,
    }
    (home / "settings.json").write_text(json.dumps({**settings, "metrics_endpoint": None, "debug": False}))
    model = {
        "name": "bench",
        "implementation": "mlserver_model.OnnxModel",
        "parameters": {"uri": str(folder / "model.onnx")},
    }
    (home / "model-settings.json").write_text(json.dumps(model))
    (home / "mlserver_model.py").write_text((HERE / "mlserver_model.py").read_text())
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [CACHE / "bin/mlserver", "start", home],
            stdout=log,
            stderr=log,
            cwd=home,
            env=os.environ | {"PYTHONPATH": str(home)},
        )
    try:
        for _ in range(600):
            try:
                urlopen(f"http://127.0.0.1:{http}/v2/models/bench/ready").close()
                break
            except (URLError, OSError):
                time.sleep(0.1)
        else:
            sys.exit(f"MLServer does not start:\n{(home / 'log').read_text()[-2000:]}")
        yield f"http://127.0.0.1:{http}/v2/models/bench/infer", psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait(30)


def cpu_s(process: psutil.Process) -> float:
    """CPU time of a server and its children."""
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def report(rows: list[dict[str, Any]], raw: float, runs: dict[str, Any], options: argparse.Namespace) -> None:
    by_case = {row["case"]: row for row in rows}
    ratios = {}
    for name, one, other in (
        ("fedfab to bare, requests per CPU second", "fedfab", "bare aiohttp + onnxruntime"),
        ("fedfab to MLServer, requests per CPU second", "fedfab", "MLServer"),
        ("recorded to not recorded, requests per CPU second", "fedfab", "fedfab, nothing recorded"),
        ("signed to plain, requests per CPU second", "fedfab, signed", "fedfab"),
    ):
        if one in by_case and other in by_case:
            pairs = zip(runs[one], runs[other], strict=True)
            ratios[name] = statistics.median(a["requests_per_cpu_s"] / b["requests_per_cpu_s"] for a, b in pairs)
            pairs = zip(runs[one], runs[other], strict=True)
            ratios[name.replace("per CPU second", "a second")] = statistics.median(
                a["requests_per_s"] / b["requests_per_s"] for a, b in pairs
            )
    result = {
        "cores": len(os.sched_getaffinity(0)),
        "connections": options.connections,
        "repeats": options.repeats,
        "raw_onnxruntime_runs_per_s": raw,
        "ratios": ratios,
        "cases": rows,
        "runs": runs,
    }
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "inference.json").write_text(json.dumps(result, indent=1))
    table = Table("case", "requests/s", "CPU µs", "p50 ms", "p99 ms", "half load: p50 ms", "p99 ms", "MB")
    for row in rows:
        load = [f"{row[key]:.2f}" for key in ("p50_ms", "p99_ms", "half_p50_ms", "half_p99_ms")]
        table.add_row(
            row["case"], f"{row['requests_per_s']:.0f}", f"{row['cpu_us']:.0f}", *load, f"{row['rss_mb']:.0f}"
        )
    console = Console(width=120)
    console.print(table)
    console.print(f"raw onnxruntime: {raw:.0f} runs/s")
    for name, ratio in ratios.items():
        console.print(f"{name}: {ratio:.2f}")


def _python(script: str, *arguments: object) -> str:
    command = [sys.executable, HERE / script, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


if __name__ == "__main__":
    main()
