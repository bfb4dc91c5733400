"""Federated standardisation: sums travel, rows never do, and the result equals that of the pooled data."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from models.dataset import Dataset
from models.errors import ModelError
from models.learner import Moments, Params
from models.parameters import scaler
from models.schema import Schema
from models.spec import TaskSpec
from models.sums import add_by_name

RESOLUTION = 1e-6
"""A field whose standard deviation is below this share of its mean is constant, as far as float32 inputs can tell."""


def moments(spec: TaskSpec, schema: Schema, data: Dataset) -> Moments:
    """Count, sum and sum of squares of every field over the training windows, and of the label for a regression.

    Names are ``scaler@…/count`` (1,), ``…/sum`` (f,), ``…/square`` (f,) and ``target/…`` (1,).
    """
    train = data.train()
    found = _sums(scaler(schema), train.x.reshape(-1, len(schema.fields)))
    if spec.kind == "regression":
        found |= _sums("target", train.y.reshape(-1, 1))
    return found


def add(parts: Iterable[Moments]) -> Moments:
    """Moments of all members together. Raises ModelError FF-MODEL-010 where they do not fit together."""
    return add_by_name(parts)


def scaling(spec: TaskSpec, moments: Moments) -> Params:
    """``scaler@…/mean``, ``scaler@…/std`` (f,) and, for a regression, ``target/mean``, ``target/std`` (1,), float32.

    Population standard deviation; 1 for a constant field, which so becomes 0. Raises ModelError FF-MODEL-005 without a sample.
    """
    params: Params = {}
    for scope in (name.removesuffix("/count") for name in moments if name.endswith("/count")):
        count = moments[f"{scope}/count"]
        if count[0] == 0:
            raise ModelError(
                "FF-MODEL-005",
                f'task "{spec.name}": there is no training sample for {scope}',
                hint="check that the ends have labelled rows outside the hold-out (fedfab gateway check)",
            )
        mean = moments[f"{scope}/sum"] / count
        std = np.sqrt(np.maximum(moments[f"{scope}/square"] / count - mean**2, 0))
        constant = std <= RESOLUTION * np.abs(mean)
        params[f"{scope}/mean"] = mean.astype(np.float32)
        params[f"{scope}/std"] = np.where(constant, 1.0, std).astype(np.float32)
    return params


def _sums(scope: str, values: NDArray[np.float32]) -> Moments:
    return {
        f"{scope}/count": np.array([len(values)], dtype=np.float64),
        f"{scope}/sum": values.sum(axis=0, dtype=np.float64),
        f"{scope}/square": np.einsum("nf,nf->f", values, values, dtype=np.float64),
    }
