"""How good the models are on machines nobody trained on: every ONNX file, as it is served, with onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tools.demo.scenario import TestSet


def predict(model: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Predictions of an ONNX file, shape (n,), in label units."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    (prediction,) = session.run(["prediction"], {"window": x})
    return np.asarray(prediction, dtype=np.float32)[:, 0]


def squared_error(model: Path, test: TestSet) -> tuple[float, int]:
    """Sum of squared errors and number of windows."""
    return float(np.sum((predict(model, test.x).astype(np.float64) - test.y) ** 2)), len(test.y)


def rmse(errors: Iterable[tuple[float, int]]) -> float:
    """Root mean squared error over test sets together, in label units."""
    total, count = map(sum, zip(*errors, strict=True))
    return float((total / count) ** 0.5)
