"""Small models and evidence for tests of serving: what is tested there is how a model is served, not what it learned."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from gateway.modelstore import Draft, digest
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
