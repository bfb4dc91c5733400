"""The servers that are compared, each in a process of its own: ``servers.py KIND FOLDER`` prints its URL, and ends with its stdin."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import onnxruntime
import orjson
from aiohttp import web

sys.path.insert(0, str(Path(__file__).parents[2]))
from common.log import configure
from gateway.blocks import FeatureBlock
from gateway.config import Inference
from gateway.inference import InferenceServer, Recorder, Shelf
from gateway.modelstore import Draft, ModelStore, digest
from gateway.store import Labelling, Recipe, Store
from models.schema import FieldSpec, Schema
from models.spec import DataSpec, NetworkSpec, TaskSpec

FIELDS = 50
SCHEMA = Schema(fields=tuple(FieldSpec(name=f"f{i}") for i in range(FIELDS)), label=FieldSpec(name="y"))
SPEC = TaskSpec(name="bench", data=DataSpec(window=1), network=NetworkSpec(encoder=(128,), trunk=(64,)))
SECRET = "0123456789abcdef" * 2


async def fedfab(folder: Path, *, record: bool = True, sign: bool = False) -> None:
    """The gateway's own server, with its store."""
    configure("warning")
    model = (folder / "model.onnx").read_bytes()
    own = folder / f"fedfab-{record}-{sign}"
    own.mkdir()
    models = ModelStore(own / "models")
    inputs = {f.name: {"mean": 0.0, "std": 1.0} for f in SCHEMA.fields}
    draft = {"task": "bench", "task_id": "bench", "round": 1, "params_digest": digest(model), "metrics": {}}
    models.add("bench", Draft(**draft, spec=SPEC, data_schema=SCHEMA, inputs=inputs, verdict="", promoted=True), model)
    models.promote("bench", 1, "bench")
    with Store.open(own / "store.db") as store:
        store.declare("end", Recipe("bench", tuple(f.name for f in SCHEMA.fields), Labelling("field")))
        values = np.random.default_rng(0).normal(size=(10_000, FIELDS))
        times = np.arange(len(values), dtype=np.int64)
        store.append_features("end", FeatureBlock(times, values, np.zeros(len(values)), np.zeros(len(values))))
        recorder = Recorder(store.append_results)
        if not record:
            recorder.put = lambda result: None  # type: ignore[method-assign]

        async def status() -> dict[str, object]:
            return {}

        (own / "secret").touch(0o600)
        (own / "secret").write_text(SECRET)
        clients = [{"name": "mes", "secret": {"file": own / "secret"}}]
        server = InferenceServer(
            Shelf(models),
            ends={"end": SCHEMA},
            latest=store.latest,
            at_hand=store.latest_at_hand,
            recorder=recorder,
            status=status,
            settings=Inference.model_validate({"client": clients if sign else []}),
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(recorder.run())
            host, port = await server.start("127.0.0.1", 0, None)
            await told(f"http://{host}:{port}/v2/models/bench/infer")
            await server.close()
            await recorder.close()
        if recorder.dropped:
            sys.exit(f"{recorder.dropped} results were dropped")


async def bare(folder: Path) -> None:
    """The least that answers: no check, no record, no version."""
    session = _session(folder)

    async def infer(request: web.Request) -> web.Response:
        tensor = orjson.loads(await request.read())["inputs"][0]
        x = np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
        (y,) = session.run(None, {"window": x})
        answer = {"outputs": [{"name": "prediction", "shape": y.shape, "datatype": "FP32", "data": y.reshape(-1)}]}
        return web.Response(body=orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))

    await _application(infer)


async def echo(folder: Path) -> None:
    """HTTP alone."""

    async def same(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    await _application(same)


async def raw(folder: Path) -> None:
    """No server: runs of the model for a row each, in one thread."""
    session, x = _session(folder), np.zeros((1, 1, FIELDS), np.float32)
    count, until = 0, time.perf_counter() + 2.0
    while time.perf_counter() < until:
        for _ in range(100):
            session.run(None, {"window": x})
        count += 100
    print(count / 2.0, flush=True)


async def _application(handler: Callable[[web.Request], Awaitable[web.Response]]) -> None:
    app = web.Application()
    app.router.add_post("/infer", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await told(f"http://127.0.0.1:{runner.addresses[0][1]}/infer")
    await runner.cleanup()


def _session(folder: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(folder / "model.onnx", options)


async def told(url: str) -> None:
    print(url, flush=True)
    await asyncio.to_thread(sys.stdin.read)


KINDS: dict[str, Callable[[Path], Awaitable[None]]] = {
    "fedfab": fedfab,
    "fedfab-unrecorded": lambda folder: fedfab(folder, record=False),
    "fedfab-signed": lambda folder: fedfab(folder, sign=True),
    "bare": bare,
    "echo": echo,
    "raw": raw,
}

if __name__ == "__main__":
    asyncio.run(KINDS[sys.argv[1]](Path(sys.argv[2])))  # type: ignore[arg-type]
