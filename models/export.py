"""A trained network as one ONNX file with its preprocessing inside: raw units in, label units or probabilities out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.learner import Params
from models.parameters import digest, layers, require, scaler, shapes
from models.schema import Schema
from models.spec import TaskSpec

OPSET = 20
IR_VERSION = 10


def export(spec: TaskSpec, schema: Schema, params: Params, metadata: Mapping[str, str]) -> bytes:
    """The model of one schema as ONNX.

    Input ``window`` (N, window, f) float32 in raw units; output ``prediction`` (N, 1) float32 in label units, or ``probabilities``
    (N, classes) float32 and ``label`` (N,) int64. ``metadata`` goes into the file with what the file says of itself: ``task``,
    ``kind``, ``schema`` (JSON), ``window``, ``unit`` of the label and ``params`` (SHA-256 of its parameters).

    Raises ModelError FF-MODEL-003 where ``params`` do not fit.
    """
    require(params, spec, schema)
    own = {name: params[name] for name in shapes(spec, schema)}
    nodes, outputs = _body(spec, schema)
    fields = len(schema.fields)
    graph = helper.make_graph(
        [*_standardised(schema), *nodes],
        spec.name,
        [helper.make_tensor_value_info("window", TensorProto.FLOAT, ["N", spec.data.window, fields])],
        outputs,
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in own.items()],
    )
    model = helper.make_model(
        graph, producer_name="fedfab", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    about = {
        "task": spec.name,
        "kind": spec.kind,
        "schema": schema.model_dump_json(),
        "window": str(spec.data.window),
        "unit": schema.label.unit,
        "params": digest(own),
    }
    helper.set_model_props(model, dict(sorted({**metadata, **about}.items())))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _standardised(schema: Schema) -> list[onnx.NodeProto]:
    scope = scaler(schema)
    return [
        helper.make_node("Sub", ["window", f"{scope}/mean"], ["centred"]),
        helper.make_node("Div", ["centred", f"{scope}/std"], ["standardised"]),
        helper.make_node("Flatten", ["standardised"], ["values"], axis=1),
    ]


def _body(spec: TaskSpec, schema: Schema) -> tuple[list[onnx.NodeProto], list[onnx.ValueInfoProto]]:
    nodes, value = [], "values"
    for layer in layers(spec, schema):
        name = f"{layer.scope}/{layer.index}"
        nodes.append(helper.make_node("Gemm", [value, layer.weight, layer.bias], [name], transB=1))
        value = name
        if layer.relu:
            nodes.append(helper.make_node("Relu", [name], [f"{name}.relu"]))
            value = f"{name}.relu"
    if spec.kind == "regression":
        nodes.append(helper.make_node("Mul", [value, "target/std"], ["scaled"]))
        nodes.append(helper.make_node("Add", ["scaled", "target/mean"], ["prediction"]))
        return nodes, [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["N", 1])]
    nodes.append(helper.make_node("Softmax", [value], ["probabilities"], axis=1))
    nodes.append(helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0))
    return nodes, [
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", spec.classes]),
        helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
    ]
