"""Federated averaging over several ends in one process: the same functions as in the plants, without the wire between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models import aggregate, metrics, parameters, scaling, training
from models.dataset import Dataset
from models.learner import Params, Tally
from models.schema import FieldSpec, Schema
from models.spec import TaskSpec


def schema(fields: int, label: str = "remaining", unit: str = "cycles") -> Schema:
    """A schema of so many numbered fields."""
    names = tuple(FieldSpec(name=f"field-{number}") for number in range(fields))
    return Schema(fields=names, label=FieldSpec(name=label, unit=unit))


def dataset(x: object, y: object, holdout: object = False) -> Dataset:
    """Samples as they are, each a group of its own."""
    features, labels = np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float32)
    held = np.broadcast_to(np.asarray(holdout, dtype=np.bool_), labels.shape)
    return Dataset(features, labels, held, np.arange(len(labels), dtype=np.float64), np.arange(len(labels)))


def start(spec: TaskSpec, ends: Sequence[tuple[Schema, Dataset]]) -> Params:
    """First parameters, with the standardisation of all ends."""
    sums = scaling.add(scaling.moments(spec, schema, data) for schema, data in ends)
    return parameters.initial(spec, [schema for schema, _ in ends]) | scaling.scaling(spec, sums)


def federate(spec: TaskSpec, ends: Sequence[tuple[Schema, Dataset]]) -> Params:
    """``spec.rounds.max`` rounds over all ends; with one end it is that end alone."""
    params = start(spec, ends)
    for round_ in range(1, spec.rounds.max + 1):
        mean = aggregate.Mean(params)
        for number, (schema, data) in enumerate(ends):
            own = parameters.held(params, [schema])
            fitted = training.fit(spec, schema, own, data, name=f"end-{number}", round_=round_)
            mean.add(fitted.params, fitted.samples, f"end-{number}")
        params = mean.result(params)
    return params


def score(spec: TaskSpec, tallies: Sequence[Tally], metric: str) -> float:
    """A metric of all tallies together."""
    return metrics.metrics(spec, metrics.merge(tallies))[metric]


def joined(parts: Sequence[Dataset]) -> Dataset:
    """The data of all ends in one place: what a federation must do without."""
    names = ("x", "y", "holdout", "group", "time")
    return Dataset(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
