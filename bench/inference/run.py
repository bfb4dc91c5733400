"""On-line predictions per second over the Open Inference Protocol, beside a bare aiohttp handler around the same model."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import numpy as np
import onnxruntime
import orjson
from aiohttp import web
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2]))
from common.log import configure
from gateway.blocks import FeatureBlock
from gateway.inference import InferenceServer, Recorder, Shelf
from gateway.modelstore import Draft, ModelStore, digest
from gateway.store import Labelling, Recipe, Store
from models.export import export
from models.parameters import initial
from models.schema import FieldSpec, Schema
from models.spec import DataSpec, NetworkSpec, TaskSpec

HERE = Path(__file__).parent
FIELDS = 50
CONNECTIONS = 16
SCHEMA = Schema(fields=tuple(FieldSpec(name=f"f{i}") for i in range(FIELDS)), label=FieldSpec(name="y"))
SPEC = TaskSpec(name="bench", data=DataSpec(window=1), network=NetworkSpec(encoder=(128,), trunk=(64,)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--serve", choices=["fedfab", "floor"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
        return
    rng = np.random.default_rng(0)
    one, many = (body(rng.normal(size=(n, 1, FIELDS))) for n in (1, 256))
    cases = {"fedfab, a row": ("fedfab", one, 1), "bare aiohttp + onnxruntime, a row": ("floor", one, 1)}
    cases |= {"fedfab, latest row of an end": ("fedfab", b'{"parameters": {"end": "end"}}', 1)}
    cases |= {"fedfab, 256 rows": ("fedfab", many, 256), "bare, 256 rows": ("floor", many, 256)}
    rows = [{"case": name, **measure(*case, options.seconds)} for name, case in cases.items()]
    result = {"cores": len(os.sched_getaffinity(0)), "connections": CONNECTIONS, "cases": rows}
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "inference.json").write_text(json.dumps(result, indent=1))
    table = Table("case", "requests/s", "rows/s", "server's CPU µs/request", "p50 ms", "p99 ms", "server's peak MB")
    for row in rows:
        table.add_row(
            row["case"], f"{row['requests_per_s']:.0f}", f"{row['rows_per_s']:.0f}", f"{row['cpu_us']:.0f}",
            f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}", f"{row['peak_mb']:.0f}",
        )  # fmt: skip
    Console().print(table)


def body(x: np.ndarray) -> bytes:
    tensor = {"name": "window", "shape": x.shape, "datatype": "FP32", "data": x.astype(np.float32).reshape(-1)}
    return orjson.dumps({"inputs": [tensor]}, option=orjson.OPT_SERIALIZE_NUMPY)


def measure(kind: str, payload: bytes, rows: int, seconds: float) -> dict[str, float]:
    command = [sys.executable, __file__, "--serve", kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        asyncio.run(load(url, payload, 1.0))
        before = cpu_s(server.pid)
        started = time.perf_counter()
        latencies = asyncio.run(load(url, payload, seconds))
        elapsed, used = time.perf_counter() - started, cpu_s(server.pid) - before
        server.stdin.close()
        peak_mb = float(server.stdout.readline())
    return {
        "requests_per_s": len(latencies) / elapsed,
        "rows_per_s": len(latencies) * rows / elapsed,
        "cpu_us": used / len(latencies) * 1e6,
        "p50_ms": float(np.percentile(latencies, 50)) * 1e3,
        "p99_ms": float(np.percentile(latencies, 99)) * 1e3,
        "peak_mb": peak_mb,
    }


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(url: str, payload: bytes, seconds: float) -> list[float]:
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    async def ask(session: aiohttp.ClientSession) -> None:
        while (start := time.perf_counter()) < until:
            async with session.post(url, data=payload) as response:
                await response.read()
                if response.status != 200:
                    raise RuntimeError(await response.text())
            latencies.append(time.perf_counter() - start)

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(ask(session))
    return latencies


async def serve(kind: str) -> None:
    configure("warning")
    model = export(SPEC, SCHEMA, initial(SPEC, [SCHEMA]), {})
    with tempfile.TemporaryDirectory() as folder:
        await {"fedfab": fedfab, "floor": floor}[kind](model, Path(folder))


async def told(url: str) -> None:
    print(url, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)


async def fedfab(model: bytes, folder: Path) -> None:
    draft = {"task": "bench", "task_id": "bench", "round": 1, "params_digest": digest(model), "metrics": {}}
    models = ModelStore(folder / "models")
    models.add("bench", Draft(**draft, spec=SPEC, data_schema=SCHEMA, verdict="", promoted=True), model)
    models.promote("bench", 1, "bench")
    with Store.open(folder / "store.db") as store:
        store.declare("end", Recipe("bench", tuple(f.name for f in SCHEMA.fields), Labelling("field")))
        n = 10_000
        values = np.random.default_rng(0).normal(size=(n, FIELDS))
        store.append_features("end", FeatureBlock(np.arange(n, dtype=np.int64), values, np.zeros(n), np.zeros(n)))
        recorder = Recorder(store.append_results)

        async def status() -> dict[str, object]:
            return {}

        server = InferenceServer(
            Shelf(models), ends={"end": SCHEMA}, latest=store.latest, recorder=recorder, status=status
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(recorder.run())
            host, port = await server.start("127.0.0.1", 0, None)
            await told(f"http://{host}:{port}/v2/models/bench/infer")
            await server.close()
            await recorder.close()
        if recorder.dropped:
            raise RuntimeError(f"{recorder.dropped} results were dropped")


async def floor(model: bytes, folder: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options)

    async def infer(request: web.Request) -> web.Response:
        tensor = orjson.loads(await request.read())["inputs"][0]
        x = np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
        (y,) = session.run(None, {"window": x})
        answer = {"outputs": [{"name": "prediction", "shape": y.shape, "datatype": "FP32", "data": y.reshape(-1)}]}
        return web.Response(body=orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))

    app = web.Application()
    app.router.add_post("/infer", infer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await told(f"http://127.0.0.1:{runner.addresses[0][1]}/infer")
    await runner.cleanup()


if __name__ == "__main__":
    main()
