from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from models import export, parameters, training
from models.errors import ModelError
from models.learner import Params
from models.schema import Schema
from models.spec import DataSpec, NetworkSpec, TaskSpec
from tests.models.simulation import dataset, schema, start

SCHEMA = schema(3)
WEAR = TaskSpec(name="wear", seed=1, data=DataSpec(window=4), network=NetworkSpec(encoder=(16, 8), trunk=(8,)))
FAULT = WEAR.model_copy(update={"name": "fault", "kind": "classification", "classes": 5})
TABLE = WEAR.model_copy(update={"name": "table", "data": DataSpec(window=1)})


def model(spec: TaskSpec) -> tuple[Params, np.ndarray]:
    """Parameters after a little training, and windows far from standard units."""
    random = np.random.default_rng(0)
    x = random.normal([500, 0.02, -8000], [3, 0.001, 50], (300, spec.data.window, 3)).astype(np.float32)
    y = random.integers(0, spec.classes, 300) if spec.kind == "classification" else random.normal(90, 30, 300)
    params = start(spec, [(SCHEMA, dataset(x, y))])
    fitted = training.fit(spec, SCHEMA, params, dataset(x, y), name="end", round_=1)
    return params | fitted.params, x


def session(spec: TaskSpec, params: Params, schema: Schema = SCHEMA) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(export.export(spec, schema, params, {}), providers=["CPUExecutionProvider"])


@pytest.mark.clause("8.10.2")
@pytest.mark.parametrize("spec", [WEAR, TABLE], ids=lambda spec: spec.name)
def test_onnxruntime_predicts_what_torch_predicts(spec: TaskSpec) -> None:
    params, x = model(spec)
    runtime = session(spec, params)
    for batch in (1, 7, 300):
        (prediction,) = runtime.run(["prediction"], {"window": x[:batch]})
        assert prediction.shape == (batch, 1)
        np.testing.assert_allclose(prediction[:, 0], training.predict(spec, SCHEMA, params, x[:batch]), rtol=1e-5)


def test_onnxruntime_gives_torchs_probabilities_and_the_likeliest_class() -> None:
    params, x = model(FAULT)
    probabilities, label = session(FAULT, params).run(["probabilities", "label"], {"window": x})
    expected = training.predict(FAULT, SCHEMA, params, x)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5, atol=1e-7)
    assert label.dtype == np.int64
    assert label.tolist() == expected.argmax(axis=1).tolist()


def test_the_file_says_what_it_is() -> None:
    params, _ = model(WEAR)
    file = onnx.load_from_string(export.export(WEAR, SCHEMA, params, {"version": "3", "task": "a lie"}))
    about = {entry.key: entry.value for entry in file.metadata_props}
    assert Schema.model_validate(json.loads(about.pop("schema"))) == SCHEMA
    own = {name: params[name] for name in parameters.shapes(WEAR, SCHEMA)}
    assert about == {
        "version": "3",
        "task": "wear",
        "kind": "regression",
        "window": "4",
        "unit": "cycles",
        "params": parameters.digest(own),
    }


def test_inputs_and_outputs_have_names_and_shapes() -> None:
    runtime = session(FAULT, model(FAULT)[0])
    assert [(entry.name, entry.shape, entry.type) for entry in runtime.get_inputs()] == [
        ("window", ["N", 4, 3], "tensor(float)")
    ]
    assert [(entry.name, entry.shape) for entry in runtime.get_outputs()] == [
        ("probabilities", ["N", 5]),
        ("label", ["N"]),
    ]


def test_the_same_model_gives_the_same_file() -> None:
    params, _ = model(WEAR)
    first = export.export(WEAR, SCHEMA, params, {"a": "1", "b": "2"})
    assert first == export.export(WEAR, SCHEMA, dict(reversed(params.items())), {"b": "2", "a": "1"})


def test_other_schemas_stay_out_of_the_file() -> None:
    params, _ = model(WEAR)
    both = parameters.initial(WEAR, [schema(7)]) | params
    assert export.export(WEAR, SCHEMA, both, {}) == export.export(WEAR, SCHEMA, params, {})


def test_parameters_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelError, match=r"FF-MODEL-003"):
        export.export(WEAR, schema(2), model(WEAR)[0], {})
