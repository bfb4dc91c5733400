"""Small models, evidence and a running server for tests of serving: how a model is served, not what it learned."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from aiohttp import ClientSession
from onnx import TensorProto, helper, numpy_helper

from gateway.config import Inference
from gateway.config.member import Trust
from gateway.inference import InferenceServer, Recorder, Shelf
from gateway.inference.latest import Latest
from gateway.modelstore import Draft, ModelStore, digest
from gateway.store import Result
from models.dataset import Rows
from models.schema import FieldSpec, Schema
from models.spec import DataSpec, TaskSpec

ROWS, FIELDS = 3, 2
SCHEMA = Schema(
    fields=(FieldSpec(name="vibration", unit="mm/s"), FieldSpec(name="temperature", unit="degC")),
    label=FieldSpec(name="wear", unit="um"),
)
SPEC = TaskSpec(name="wear", layer="cluster", data=DataSpec(window=ROWS))


def onnx_model(add: float) -> bytes:
    """``window`` (N, 3, 2) to ``prediction`` (N, 1): the sum of all its numbers plus ``add``."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["window", "axes"], ["sum"], keepdims=0),
            helper.make_node("Add", ["sum", "add"], ["flat"]),
            helper.make_node("Reshape", ["flat", "shape"], ["prediction"]),
        ],
        "sum",
        [helper.make_tensor_value_info("window", TensorProto.FLOAT, ["N", ROWS, FIELDS])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["N", 1])],
        [
            numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
            numpy_helper.from_array(np.array([-1, 1], np.int64), "shape"),
            numpy_helper.from_array(np.array(add, np.float32), "add"),
        ],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    return model.SerializeToString()


def slow_model(cpu_ms: int) -> bytes:
    """The same with 0 to add, but each run of it takes about so many milliseconds of CPU."""
    width = 1024
    body = helper.make_graph(
        [helper.make_node("MatMul", ["h", "identity"], ["next"]), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("h", TensorProto.FLOAT, ["N", width]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["N", width]),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["window", "axes"], ["flat"], keepdims=0),
            helper.make_node("Reshape", ["flat", "shape"], ["sum"]),
            helper.make_node("MatMul", ["sum", "first"], ["wide"]),
            helper.make_node("Loop", ["runs", "", "wide"], ["same"], body=body),
            helper.make_node("ReduceSum", ["same", "columns"], ["prediction"], keepdims=1),
        ],
        "slow",
        [helper.make_tensor_value_info("window", TensorProto.FLOAT, ["N", ROWS, FIELDS])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["N", 1])],
        [
            numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
            numpy_helper.from_array(np.array([1], np.int64), "columns"),
            numpy_helper.from_array(np.array([-1, 1], np.int64), "shape"),
            numpy_helper.from_array(np.eye(1, width, dtype=np.float32), "first"),
            numpy_helper.from_array(np.eye(width, dtype=np.float32), "identity"),
            numpy_helper.from_array(np.array(15 * cpu_ms, np.int64), "runs"),
        ],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    return model.SerializeToString()


def draft(params: str = "a", **changes: object) -> Draft:
    """Evidence of a model whose parameters are told apart by ``params``."""
    values: dict[str, object] = {
        "task": "wear",
        "task_id": "t1",
        "round": 3,
        "spec": SPEC,
        "data_schema": SCHEMA,
        "params_digest": digest(params.encode()),
        "metrics": {"spindle-1": {"rmse": 1.0}},
        "verdict": "promoted: the first of its name",
        "promoted": True,
    }
    return Draft.model_validate(values | changes)


@dataclass(frozen=True)
class Serving:
    """A server on a loopback port, what it records, and a client without credentials."""

    server: InferenceServer
    recorder: Recorder
    client: ClientSession
    port: int


@asynccontextmanager
async def serving(
    models: ModelStore,
    *,
    ends: Mapping[str, Schema] | None = None,
    latest: Latest | None = None,
    write: Callable[[Sequence[Result]], None] | None = None,
    settings: Inference | None = None,
    trust: Trust | None = None,
    tls: ssl.SSLContext | None = None,
    control_socket: Path | None = None,
) -> AsyncIterator[Serving]:
    """Serve these models until the block ends; everything recorded is written then."""
    recorder = Recorder(write or (lambda results: None))
    server = InferenceServer(
        Shelf(models),
        ends=ends or {},
        latest=latest or _no_rows,
        recorder=recorder,
        status=_status,
        settings=settings,
        trust=trust,
        control_socket=control_socket,
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(recorder.run())
        host, port = await server.start("127.0.0.1", 0, tls)
        try:
            async with ClientSession(f"{'https' if tls else 'http'}://{host}:{port}") as client:
                yield Serving(server, recorder, client, port)
        finally:
            await server.close()
            await recorder.close()


def _no_rows(end: str, n: int) -> Rows:
    return Rows(np.zeros(0, np.int64), np.zeros((0, FIELDS)), np.zeros(0), np.zeros(0))


async def _status() -> dict[str, object]:
    return {"gateway": "test"}
