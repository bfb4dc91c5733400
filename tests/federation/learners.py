"""Learners small enough to check by hand: linear regression by gradient descent in numpy, deterministic, on private rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from models import metrics
from models.learner import Description, Moments, Params, Tally, Update
from models.parameters import encoder, scaler
from models.schema import FieldSpec, Schema
from models.spec import TaskSpec

SCHEMA = Schema(
    fields=(FieldSpec(name="speed", unit="rpm"), FieldSpec(name="load", unit="N")),
    label=FieldSpec(name="wear", unit="um"),
)


class Line:
    """An end that moves the head's bias towards the mean of its labels, and the first weights at random but by seed."""

    def __init__(self, spec: TaskSpec, name: str, schema: Schema = SCHEMA, samples: int = 20) -> None:
        self.name = name
        self.spec, self.schema = spec, schema
        rng = np.random.default_rng(list(name.encode()))
        self.rows = rng.normal(size=(samples, len(schema.fields)))
        self.labels = self.rows.sum(axis=1) + rng.normal(size=samples)
        self.fitted: list[int] = []

    async def describe(self) -> Description:
        return Description({"presses": self.schema}, len(self.rows), {self.name: len(self.rows)})

    async def moments(self) -> Moments:
        def sums(scope: str, values: np.ndarray[Any, np.dtype[np.float64]]) -> Moments:
            return {
                f"{scope}/count": np.array([float(len(values))]),
                f"{scope}/sum": values.sum(axis=0),
                f"{scope}/square": (values**2).sum(axis=0),
            }

        return sums(scaler(self.schema), self.rows) | sums("target", self.labels[:, None])

    async def fit(self, round_: int, params: Params) -> Update:
        self.fitted.append(round_)
        rng = np.random.default_rng([round_, *self.name.encode()])
        learned = {
            name: (value + 0.1 * rng.normal(size=value.shape)).astype(np.float32)
            for name, value in sorted(params.items())
            if name.startswith((encoder(self.schema), "trunk/", "head/"))
        }
        learned["head/0.bias"] = params["head/0.bias"] + np.float32(0.5) * np.float32(
            self.labels.mean() - params["head/0.bias"][0]
        )
        return Update(learned, len(self.rows), 1 / round_, {self.name: self._tally(params)}, {"epochs": 1})

    async def evaluate(self, params: Params) -> Mapping[str, Tally]:
        return {self.name: self._tally(params)}

    async def finish(self, params: Params) -> Mapping[str, Any]:
        return {"promoted": True}

    def _tally(self, params: Params) -> Tally:
        guess = np.full(len(self.labels), params["head/0.bias"][0], dtype=np.float32)
        return metrics.tally(self.spec, self.labels.astype(np.float32), guess)
