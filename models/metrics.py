"""Annex B's metrics and those of a regression, all from additive tallies: pooling ends means adding, and no prediction travels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.dataset import class_numbers
from models.learner import Tally
from models.spec import TaskSpec
from models.sums import add_by_name

BINS = 1024
"""Bins of the score histogram behind the AUC of two classes; more classes share about as many."""
LOGIT_RANGE = 16.0
"""Log-odds beyond ±16 (a probability of 1e-7) share the outermost bins."""
LEAST = 1e-7
"""Probabilities are clipped to this before the logarithm: float32 cannot tell 1 - p from 1 below it."""


def tally(spec: TaskSpec, y: NDArray[np.float32], prediction: NDArray[np.float32]) -> Tally:
    """Sums over n samples. ``prediction`` is (n,) in label units, or probabilities (n, classes).

    Raises ModelError FF-MODEL-002 for a label that is no class.
    """
    return _regression_tally(y, prediction) if spec.kind == "regression" else _class_tally(spec, y, prediction)


def merge(tallies: Iterable[Tally]) -> Tally:
    """The tally of all samples together. Raises ModelError FF-MODEL-010 where tallies do not fit together."""
    return add_by_name(tallies)


def metrics(spec: TaskSpec, tally: Tally) -> dict[str, float]:
    """Metrics by name; one that these samples do not define (AUC of a single class, anything without a sample) is absent.

    Regression: ``loss`` (mean squared error in label units), ``rmse``, ``mae``, ``r2``. Classification: ``loss`` (cross-entropy,
    B.1), ``auc`` (B.2), ``accuracy`` (B.3), ``precision``, ``recall``, ``f1`` (B.4-B.6). Of two classes, 1 is the positive one; of
    more, the means over classes (macro; AUC one against the rest) are given.
    """
    if not tally or tally["count"][0] == 0:
        return {}
    return _regression_metrics(tally) if spec.kind == "regression" else _class_metrics(tally)


def primary(spec: TaskSpec) -> tuple[str, Literal["lower", "higher"]]:
    """The metric that decides between models, and which way is better; both are defined on any samples, even of one class."""
    return ("rmse", "lower") if spec.kind == "regression" else ("loss", "lower")


def auc_error(tally: Tally) -> float:
    """How far ``auc`` may be from the exact one: pairs whose scores share a bin count one half, whichever way they stand."""
    negative, positive = tally["scores"][:, 0], tally["scores"][:, 1]
    pairs = negative.sum(axis=1) * positive.sum(axis=1)
    return float(np.mean(((negative * positive).sum(axis=1) / 2)[pairs > 0] / pairs[pairs > 0]))


def _regression_tally(y: NDArray[np.float32], prediction: NDArray[np.float32]) -> Tally:
    label = y.astype(np.float64)
    error = prediction - label
    sums = {
        "count": len(y),
        "absolute": np.abs(error).sum(),
        "squared": (error**2).sum(),
        "label": label.sum(),
        "label_squared": (label**2).sum(),
    }
    return {name: np.array([value], dtype=np.float64) for name, value in sums.items()}


def _regression_metrics(tally: Tally) -> dict[str, float]:
    count, absolute, squared, label, label_squared = (
        float(tally[name][0]) for name in ("count", "absolute", "squared", "label", "label_squared")
    )
    found = {"loss": squared / count, "rmse": (squared / count) ** 0.5, "mae": absolute / count}
    spread = label_squared - label**2 / count
    if spread > 1e-9 * label_squared:
        found["r2"] = 1 - squared / spread
    return found


def _class_tally(spec: TaskSpec, y: NDArray[np.float32], prediction: NDArray[np.float32]) -> Tally:
    numbers = class_numbers(spec, y)
    chosen = prediction.argmax(axis=1)
    probability = np.clip(prediction.astype(np.float64), LEAST, 1 - LEAST)
    observed = range(1, 2) if spec.classes == 2 else range(spec.classes)
    bins = max(16, BINS // len(observed))
    per_class = {
        "actual": np.bincount(numbers, minlength=spec.classes),
        "chosen": np.bincount(chosen, minlength=spec.classes),
        "right": np.bincount(numbers[chosen == numbers], minlength=spec.classes),
    }
    return {
        "count": np.array([len(y)], dtype=np.float64),
        "cross_entropy": np.array([-np.log(probability[np.arange(len(y)), numbers]).sum()]),
        "scores": np.stack([_histogram(numbers == one, probability[:, one], bins) for one in observed]),
        **{name: value.astype(np.float64) for name, value in per_class.items()},
    }


def _histogram(positive: NDArray[np.bool_], probability: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Counts of negatives and positives, shape (2, bins), over equal steps of the log-odds: rare classes keep their resolution."""
    logit = np.log(probability / (1 - probability))
    index = np.clip(((logit / LOGIT_RANGE + 1) / 2 * bins).astype(np.int64), 0, bins - 1)
    return np.stack([np.bincount(index[side], minlength=bins) for side in (~positive, positive)]).astype(np.float64)


def _class_metrics(tally: Tally) -> dict[str, float]:
    count = float(tally["count"][0])
    right, chosen, actual = tally["right"], tally["chosen"], tally["actual"]
    counted = np.array([False, True]) if len(actual) == 2 else (chosen + actual) > 0
    found = {"loss": float(tally["cross_entropy"][0]) / count, "accuracy": float(right.sum()) / count}
    for name, whole in (("precision", chosen), ("recall", actual), ("f1", (chosen + actual) / 2)):
        found[name] = float(np.mean((right / np.maximum(whole, 0.5))[counted]))
    areas = [_area(negative, positive) for negative, positive in tally["scores"] if negative.any() and positive.any()]
    if areas:
        found["auc"] = float(np.mean(areas))
    return found


def _area(negative: NDArray[np.float64], positive: NDArray[np.float64]) -> float:
    """Area under the ROC points of all thresholds, from the highest down, by the trapezoid rule (B.2)."""
    false_rate = np.concatenate([[0.0], np.cumsum(negative[::-1])]) / negative.sum()
    true_rate = np.concatenate([[0.0], np.cumsum(positive[::-1])]) / positive.sum()
    return float(np.trapezoid(true_rate, false_rate))
