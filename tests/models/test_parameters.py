from __future__ import annotations

import contextlib
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from models import parameters
from models.errors import ModelError
from models.spec import DataSpec, NetworkSpec, TaskSpec
from tests.models.simulation import schema

SPEC = TaskSpec(name="wear", seed=3, data=DataSpec(window=5), network=NetworkSpec(encoder=(8, 6), trunk=(4,)))
PRESS, PUMP = schema(3), schema(2)


def test_names_and_shapes_of_the_network() -> None:
    digest = PRESS.digest()
    assert parameters.shapes(SPEC, PRESS) == {
        f"encoder@{digest}/0.weight": (8, 15),
        f"encoder@{digest}/0.bias": (8,),
        f"encoder@{digest}/1.weight": (6, 8),
        f"encoder@{digest}/1.bias": (6,),
        "trunk/0.weight": (4, 6),
        "trunk/0.bias": (4,),
        "head/0.weight": (1, 4),
        "head/0.bias": (1,),
        f"scaler@{digest}/mean": (3,),
        f"scaler@{digest}/std": (3,),
        "target/mean": (1,),
        "target/std": (1,),
    }


def test_a_classification_has_a_score_for_each_class_and_no_target_scale() -> None:
    shapes = parameters.shapes(SPEC.model_copy(update={"kind": "classification", "classes": 7}), PRESS)
    assert shapes["head/0.weight"] == (7, 4)
    assert "target/mean" not in shapes


def test_every_process_makes_the_same_parameters() -> None:
    program = (
        "from tests.models.test_parameters import *\nprint(parameters.digest(parameters.initial(SPEC, [PUMP, PRESS])))"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == parameters.digest(parameters.initial(SPEC, [PRESS, PUMP]))


def test_a_further_schema_changes_no_other_scope() -> None:
    alone, both = parameters.initial(SPEC, [PRESS]), parameters.initial(SPEC, [PUMP, PRESS])
    for name, value in alone.items():
        assert np.array_equal(value, both[name])


def test_seed_and_scope_change_the_parameters() -> None:
    first = parameters.initial(SPEC, [PRESS])
    other = parameters.initial(SPEC.model_copy(update={"seed": 4}), [PRESS])
    assert all(not np.array_equal(first[name], other[name]) for name in first if parameters.trainable(name))


def test_initial_values_are_uniform_within_torchs_bound() -> None:
    wide = SPEC.model_copy(update={"network": NetworkSpec(encoder=(1000,), trunk=(4,))})
    weight = parameters.initial(wide, [PRESS])[f"encoder@{PRESS.digest()}/0.weight"]
    bound = 1 / np.sqrt(15)
    assert weight.dtype == np.float32
    assert 0.99 * bound < np.abs(weight).max() <= bound
    assert weight.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    assert abs(weight.mean()) < 0.02 * bound


def test_a_holder_gets_its_own_scopes_and_the_shared_ones() -> None:
    params = parameters.initial(SPEC, [PRESS, PUMP])
    assert set(parameters.held(params, [PUMP])) == set(parameters.shapes(SPEC, PUMP))
    assert set(parameters.held(params, [PUMP, PRESS])) == set(params)


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_parameters_of_another_network_are_refused(damage: str) -> None:
    params = parameters.initial(SPEC, [PRESS])
    if damage == "missing":
        del params["trunk/0.bias"]
    else:
        params["trunk/0.bias"] = np.zeros(5, dtype=np.float32)
    with pytest.raises(ModelError, match=r"FF-MODEL-003.*trunk/0\.bias is .*expected shape \(4,\)"):
        parameters.require(params, SPEC, PRESS)


def test_bytes_are_safetensors_and_come_back_without_a_copy() -> None:
    params = parameters.initial(SPEC, [PRESS])
    data = parameters.to_bytes(params)
    assert {name: value.tolist() for name, value in safetensors.numpy.load(data).items()} == {
        name: value.tolist() for name, value in params.items()
    }
    back = parameters.from_bytes(data)
    owner = np.frombuffer(data, dtype=np.uint8)
    for name, value in params.items():
        assert np.array_equal(back[name], value)
        assert np.shares_memory(back[name], owner)
        assert not back[name].flags.writeable


def test_an_unaligned_buffer_is_read_all_the_same() -> None:
    params = parameters.initial(SPEC, [PRESS])
    shifted = memoryview(b"\0" + parameters.to_bytes(params))[1:]
    back = parameters.from_bytes(shifted)
    assert all(np.array_equal(back[name], value) and back[name].flags.aligned for name, value in params.items())


def test_another_number_type_is_refused() -> None:
    data = safetensors.numpy.save({"trunk/0.bias": np.zeros(3)})
    with pytest.raises(ModelError, match=r"FF-MODEL-004.*F64"):
        parameters.from_bytes(data)


def test_a_cut_file_is_refused() -> None:
    data = parameters.to_bytes(parameters.initial(SPEC, [PRESS]))
    for length in (0, 4, 9, 60, len(data) - 1):
        with pytest.raises(ModelError, match=r"FF-MODEL-004"):
            parameters.from_bytes(data[:length])


@given(st.binary(max_size=200), st.integers(0, 120))
def test_garbage_is_refused_and_never_crashes(garbage: bytes, at: int) -> None:
    data = bytearray(parameters.to_bytes({"a": np.ones(4, dtype=np.float32), "b": np.ones((2, 2), dtype=np.float32)}))
    data[at : at + len(garbage)] = garbage
    for candidate in (bytes(data), garbage):
        with contextlib.suppress(ModelError):
            parameters.from_bytes(candidate)
