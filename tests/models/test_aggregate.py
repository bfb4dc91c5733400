from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.aggregate import BLOCK, Mean
from models.errors import ModelError
from models.learner import Params


def update(*values: float, name: str = "trunk/0.bias") -> Params:
    return {name: np.array(values, dtype=np.float32)}


@pytest.mark.clause("8.8")
@given(
    weights=st.lists(st.integers(1, 10**6), min_size=1, max_size=8),
    size=st.sampled_from([1, 7, BLOCK - 1, BLOCK, 2 * BLOCK + 3]),
    seed=st.integers(0, 100),
)
def test_mean_by_samples(weights: list[int], size: int, seed: int) -> None:
    updates = np.random.default_rng(seed).normal(size=(len(weights), 1, size)).astype(np.float32)
    mean = Mean()
    for values, weight in zip(updates, weights, strict=True):
        mean.add({"trunk/0.weight": values}, weight)
    result = mean.result({})["trunk/0.weight"]
    expected = np.average(updates.astype(np.float64), axis=0, weights=weights)
    assert result.dtype == np.float32
    assert result.shape == (1, size)
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-7)


def test_the_same_order_gives_the_same_bits() -> None:
    updates = np.random.default_rng(0).normal(size=(9, 1000)).astype(np.float32)

    def once() -> bytes:
        mean = Mean()
        for number, values in enumerate(updates):
            mean.add({"head/0.bias": values}, 3 * number + 1)
        return mean.result({})["head/0.bias"].tobytes()

    assert once() == once()


def test_equal_updates_give_themselves_exactly() -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    mean = Mean()
    for weight in (3, 7, 11):
        mean.add({"target/mean": values}, weight)
    assert np.array_equal(mean.result({})["target/mean"], values)


@pytest.mark.clause("5.1")
def test_a_parameter_is_averaged_among_those_who_hold_it() -> None:
    previous = (
        update(0, name="trunk/0.bias") | update(1, name="encoder@aa/0.bias") | update(9, name="encoder@bb/0.bias")
    )
    mean = Mean(previous)
    mean.add(update(2, name="trunk/0.bias") | update(5, name="encoder@aa/0.bias"), 1)
    mean.add(update(6, name="trunk/0.bias"), 3)
    assert {name: value.tolist() for name, value in mean.result(previous).items()} == {
        "trunk/0.bias": [5],
        "encoder@aa/0.bias": [5],
        "encoder@bb/0.bias": [9],
    }


def test_weight_zero_counts_for_nothing() -> None:
    mean = Mean()
    mean.add(update(100), 0)
    assert mean.result(update(1))["trunk/0.bias"].tolist() == [1]
    mean.add(update(3), 2)
    assert mean.result(update(1))["trunk/0.bias"].tolist() == [3]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_update_that_is_not_finite_is_refused_whole(value: float) -> None:
    mean = Mean()
    mean.add(update(1, name="a/b") | update(2), 1, "gateway-a")
    with pytest.raises(ModelError, match=r'FF-MODEL-007.*"gateway-b".*trunk/0.bias'):
        mean.add(update(50, name="a/b") | update(value), 1, "gateway-b")
    assert {name: value.tolist() for name, value in mean.result({}).items()} == {"a/b": [1], "trunk/0.bias": [2]}


def test_another_shape_is_refused() -> None:
    mean = Mean()
    mean.add(update(1, 2), 1, "gateway-a")
    with pytest.raises(ModelError, match=r'FF-MODEL-006.*"gateway-b".*shape \(1,\), expected shape \(2,\)'):
        mean.add(update(1), 1, "gateway-b")


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(ModelError, match=r'FF-MODEL-006.*"gateway-b".*"trunk/9.bias"'):
        Mean(update(1)).add(update(1, name="trunk/9.bias"), 1, "gateway-b")


def test_the_first_update_is_held_to_what_was_sent_out() -> None:
    with pytest.raises(ModelError, match=r"FF-MODEL-006.*expected shape \(1,\)"):
        Mean(update(1)).add(update(1, 2), 1, "gateway-b")


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf")])
def test_a_weight_that_is_no_number_of_samples_is_refused(weight: float) -> None:
    with pytest.raises(ModelError, match=r"FF-MODEL-006.*weight"):
        Mean().add(update(1), weight, "gateway-b")
