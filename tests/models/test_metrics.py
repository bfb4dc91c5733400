"""The tallies against direct formulas over all samples: two ways to the same number."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import metrics
from models.errors import ModelError
from models.spec import TaskSpec

REGRESSION = TaskSpec(name="wear")
QUALITY = TaskSpec(name="quality", kind="classification", classes=2)
FAULT = TaskSpec(name="fault", kind="classification", classes=4)
Floats = NDArray[np.float32]


def exact_auc(positive: NDArray[np.bool_], score: Floats) -> float:
    """Share of pairs of a positive and a negative in which the positive scores higher, ties one half (Mann and Whitney)."""
    pairs = list(product(score[positive].tolist(), score[~positive].tolist()))
    return sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)


def predictions(classes: int, n: int, seed: int, signal: float = 1.5) -> tuple[Floats, Floats]:
    """Labels, and probabilities that know something of them."""
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, n)
    logits = random.normal(size=(n, classes)) + signal * np.eye(classes)[y]
    odds = np.exp(logits)
    return y.astype(np.float32), (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.clause("9.3.4e")
def test_regression_against_the_formulas() -> None:
    y = np.array([100, 50, 25, 0], dtype=np.float32)
    prediction = np.array([90, 55, 25, 10], dtype=np.float32)
    found = metrics.metrics(REGRESSION, metrics.tally(REGRESSION, y, prediction))
    error, spread = np.array([10, 5, 0, 10]), y - y.mean()
    assert found == {
        "loss": pytest.approx((error**2).mean()),
        "rmse": pytest.approx(np.sqrt((error**2).mean())),
        "mae": pytest.approx(error.mean()),
        "r2": pytest.approx(1 - (error**2).sum() / (spread**2).sum()),
    }


@pytest.mark.clause("Annex B")
def test_two_classes_against_the_formulas() -> None:
    y = np.array([1, 1, 1, 0, 0, 0, 0, 0], dtype=np.float32)
    p = np.array([0.9, 0.6, 0.3, 0.7, 0.4, 0.3, 0.2, 0.1], dtype=np.float32)
    tally = metrics.tally(QUALITY, y, np.stack([1 - p, p], axis=1))
    found = metrics.metrics(QUALITY, tally)
    cross_entropy = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    assert found == {
        "loss": pytest.approx(cross_entropy, rel=1e-6),
        "accuracy": pytest.approx(6 / 8),
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
        "auc": pytest.approx(exact_auc(y == 1, p)),
    }
    assert exact_auc(y == 1, p) == pytest.approx((5 + 4 + 2.5) / 15)


@pytest.mark.clause("Annex B")
def test_more_classes_against_the_formulas() -> None:
    y, probability = predictions(4, 600, seed=2)
    tally = metrics.tally(FAULT, y, probability)
    found = metrics.metrics(FAULT, tally)
    chosen = probability.argmax(axis=1)
    precision = [(y[chosen == c] == c).mean() for c in range(4)]
    recall = [(chosen[y == c] == c).mean() for c in range(4)]
    f1 = [2 * p * r / (p + r) for p, r in zip(precision, recall, strict=True)]
    assert found["accuracy"] == pytest.approx((chosen == y).mean())
    assert found["precision"] == pytest.approx(np.mean(precision))
    assert found["recall"] == pytest.approx(np.mean(recall))
    assert found["f1"] == pytest.approx(np.mean(f1))
    assert found["loss"] == pytest.approx(-np.log(probability[np.arange(600), y.astype(int)]).mean(), rel=1e-6)
    auc = np.mean([exact_auc(y == c, probability[:, c]) for c in range(4)])
    assert abs(found["auc"] - auc) <= metrics.auc_error(tally) + 1e-12


@pytest.mark.clause("Annex B")
@given(seed=st.integers(0, 1000), n=st.integers(100, 200), signal=st.floats(0, 6))
def test_auc_is_within_its_stated_error(seed: int, n: int, signal: float) -> None:
    y, probability = predictions(2, n, seed, signal)
    tally = metrics.tally(QUALITY, y, probability)
    found = metrics.metrics(QUALITY, tally)
    assert abs(found["auc"] - exact_auc(y == 1, probability[:, 1])) <= metrics.auc_error(tally) + 1e-12
    assert metrics.auc_error(tally) < 0.01


def test_auc_keeps_its_resolution_for_a_rare_class() -> None:
    random = np.random.default_rng(0)
    y = (np.arange(2000) < 20).astype(np.float32)
    p = (0.001 * np.exp(random.normal(size=2000) + y)).astype(np.float32)
    tally = metrics.tally(QUALITY, y, np.stack([1 - p, p], axis=1))
    assert p.max() < 0.1
    assert metrics.metrics(QUALITY, tally)["auc"] == pytest.approx(exact_auc(y == 1, p), abs=0.002)


@pytest.mark.parametrize("spec", [REGRESSION, QUALITY, FAULT], ids=lambda spec: spec.name)
def test_pooling_is_adding(spec: TaskSpec) -> None:
    if spec.kind == "regression":
        random = np.random.default_rng(0)
        y, prediction = random.normal(size=(2, 300)).astype(np.float32)
    else:
        y, prediction = predictions(spec.classes, 300, seed=1)
    parts = [metrics.tally(spec, y[part], prediction[part]) for part in (slice(0, 10), slice(10, 120), slice(120, 300))]
    pooled = metrics.metrics(spec, metrics.merge(parts))
    whole = metrics.metrics(spec, metrics.tally(spec, y, prediction))
    assert pooled == pytest.approx(whole, rel=1e-9)


def test_what_the_samples_do_not_define_is_absent() -> None:
    ones = np.ones(3, dtype=np.float32)
    one_class = metrics.metrics(QUALITY, metrics.tally(QUALITY, ones, np.full((3, 2), 0.5, dtype=np.float32)))
    assert "auc" not in one_class
    assert one_class["loss"] == pytest.approx(np.log(2))
    assert set(metrics.metrics(REGRESSION, metrics.tally(REGRESSION, ones, ones))) == {"loss", "rmse", "mae"}


@pytest.mark.parametrize("spec", [REGRESSION, QUALITY], ids=lambda spec: spec.name)
def test_no_sample_defines_nothing_and_disturbs_nothing(spec: TaskSpec) -> None:
    y = np.array([0, 1, 1], dtype=np.float32)
    prediction = y if spec.kind == "regression" else np.stack([1 - y, y], axis=1)
    none, some = metrics.tally(spec, y[:0], prediction[:0]), metrics.tally(spec, y, prediction)
    assert metrics.metrics(spec, none) == {}
    assert metrics.metrics(spec, metrics.merge([])) == {}
    assert metrics.metrics(spec, metrics.merge([none, some])) == metrics.metrics(spec, some)


@pytest.mark.parametrize("value", [np.array([1.0, 2.0]), np.array([np.nan])])
def test_tallies_that_do_not_fit_together_are_refused(value: NDArray[np.float64]) -> None:
    ones = np.ones(3, dtype=np.float32)
    tally = metrics.tally(REGRESSION, ones, ones)
    with pytest.raises(ModelError, match=r"FF-MODEL-010.*squared"):
        metrics.merge([tally, {**tally, "squared": value}])


def test_certain_and_wrong_costs_much_but_not_infinity() -> None:
    y = np.array([1, 0], dtype=np.float32)
    wrong = np.array([[1, 0], [0, 1]], dtype=np.float32)
    assert metrics.metrics(QUALITY, metrics.tally(QUALITY, y, wrong))["loss"] == pytest.approx(-np.log(metrics.LEAST))


@pytest.mark.parametrize("spec", [REGRESSION, QUALITY, FAULT], ids=lambda spec: spec.name)
def test_the_deciding_metric_is_always_defined(spec: TaskSpec) -> None:
    y = np.ones(1, dtype=np.float32)
    prediction = y if spec.kind == "regression" else np.full((1, spec.classes), 1 / spec.classes, dtype=np.float32)
    assert metrics.primary(spec)[0] in metrics.metrics(spec, metrics.tally(spec, y, prediction))


def test_a_tally_is_small_whatever_the_number_of_classes() -> None:
    for classes in (2, 10, 64):
        spec = TaskSpec(name="fault", kind="classification", classes=classes)
        size = sum(value.nbytes for value in metrics.tally(spec, *predictions(classes, 50, seed=0)).values())
        assert size < 24_000
