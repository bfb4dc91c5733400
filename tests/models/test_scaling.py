from __future__ import annotations

import numpy as np
import pytest

from models import parameters, scaling
from models.errors import ModelError
from models.spec import DataSpec, TaskSpec
from tests.models.simulation import dataset, schema

SPEC = TaskSpec(name="wear", data=DataSpec(window=4))
PRESS, PUMP = schema(3), schema(2)


@pytest.mark.clause("9.1.4")
def test_federated_standardisation_equals_that_of_the_pooled_data() -> None:
    random = np.random.default_rng(1)
    x = random.normal([10, -3000, 0.01], [2, 40, 0.003], (900, 4, 3)).astype(np.float32)
    y = random.normal(60, 20, 900).astype(np.float32)
    parts = [slice(0, 100), slice(100, 350), slice(350, 900)]
    sums = [scaling.moments(SPEC, PRESS, dataset(x[part], y[part])) for part in parts]
    params = scaling.scaling(SPEC, scaling.add(sums))
    flat = x.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(params[f"scaler@{PRESS.digest()}/mean"], flat.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(params[f"scaler@{PRESS.digest()}/std"], flat.std(axis=0), rtol=1e-6)
    np.testing.assert_allclose(params["target/mean"], [y.mean()], rtol=1e-6)
    np.testing.assert_allclose(params["target/std"], [y.std()], rtol=1e-6)


def test_scales_fit_the_network() -> None:
    params = scaling.scaling(SPEC, scaling.moments(SPEC, PRESS, dataset(np.ones((5, 4, 3)), np.arange(5))))
    parameters.require(parameters.initial(SPEC, [PRESS]) | params, SPEC, PRESS)
    assert all(value.dtype == np.float32 for value in params.values())


def test_the_hold_out_is_never_looked_at() -> None:
    x, y = np.ones((6, 4, 3)), np.arange(6)
    x[3:], held = 1e9, np.arange(6) >= 3
    assert scaling.moments(SPEC, PRESS, dataset(x, y, held))[f"scaler@{PRESS.digest()}/sum"].tolist() == [12, 12, 12]


def test_a_constant_field_becomes_zero_and_not_infinite() -> None:
    x = np.full((50, 4, 3), 518.67)
    x[:, :, 1] = 0.0
    x[:, :, 2] += np.linspace(0, 1, 50)[:, None]
    params = scaling.scaling(SPEC, scaling.moments(SPEC, PRESS, dataset(x, np.arange(50))))
    std = params[f"scaler@{PRESS.digest()}/std"]
    assert std[:2].tolist() == [1, 1]
    assert std[2] == pytest.approx(np.linspace(0, 1, 50).std(), rel=1e-3)


def test_schemas_have_scales_of_their_own_and_one_target() -> None:
    press = scaling.moments(SPEC, PRESS, dataset(np.ones((2, 4, 3)), [0, 2]))
    pump = scaling.moments(SPEC, PUMP, dataset(np.zeros((2, 4, 2)), [4, 6]))
    params = scaling.scaling(SPEC, scaling.add([press, pump]))
    assert params[f"scaler@{PRESS.digest()}/mean"].tolist() == [1, 1, 1]
    assert params[f"scaler@{PUMP.digest()}/mean"].tolist() == [0, 0]
    assert params["target/mean"].tolist() == [3]


def test_a_classification_has_no_target_scale() -> None:
    spec = SPEC.model_copy(update={"kind": "classification"})
    assert not any(
        name.startswith("target") for name in scaling.moments(spec, PUMP, dataset(np.ones((2, 4, 2)), [0, 1]))
    )


def test_no_sample_at_all_is_an_error() -> None:
    with pytest.raises(ModelError, match="FF-MODEL-005"):
        scaling.scaling(SPEC, scaling.moments(SPEC, PUMP, dataset(np.ones((0, 4, 2)), [])))


def test_an_end_without_samples_does_not_disturb_the_others() -> None:
    some = scaling.moments(SPEC, PUMP, dataset(np.ones((2, 4, 2)), [0, 1]))
    none = scaling.moments(SPEC, PUMP, dataset(np.ones((0, 4, 2)), []))
    params = scaling.scaling(SPEC, scaling.add([none, some, none]))
    assert params[f"scaler@{PUMP.digest()}/mean"].tolist() == [1, 1]
