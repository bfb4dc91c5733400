"""What can learn: an end, a cluster of ends, a gateway, a member at the other end of a wire. They are one thing to an aggregator.

`Learner` is the seam between learning and federation. `models` computes, `federation` carries the calls over messages, `gateway`
runs them in worker processes; and because a cluster of learners is a learner again, the hierarchy may have any depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.schema import Schema

Params = dict[str, NDArray[np.float32]]
"""Parameters by name. The part before the first ``/`` is the scope: ``encoder@<schema digest>``, ``trunk``, ``head``,
``scaler@<schema digest>``, ``target``. A parameter is averaged among those who hold it, so plants with other sensors share the
trunk and head, and plants of one schema share the encoder too."""

Moments = dict[str, NDArray[np.float64]]
"""Sums (never rows) for federated standardisation, by scope and kind (``scaler@…/count``, ``…/sum``, ``…/square``); added up by name."""

Tally = dict[str, NDArray[np.float64]]
"""Additive counts and sums from which every metric follows, pooled or per participant (`models.metrics`)."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a learner says of itself when it joins: metadata, never a value."""

    schemas: Mapping[str, Schema]
    """Schema of each cluster the learner holds, by name of the cluster."""
    samples: int
    """Training samples."""
    ends: Mapping[str, int] = field(default_factory=dict)
    """Training samples of each end below, by name."""


@dataclass(frozen=True, slots=True)
class Update:
    """The answer to one round."""

    params: Params
    """Parameters after local training: only scopes the learner holds."""
    samples: int
    """Weight of this update in the mean."""
    train_loss: float
    """Mean loss over the local training of this round."""
    before: Mapping[str, Tally]
    """Validation of the parameters as they arrived, for each end below, by name."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """What to show a person: inner rounds' losses, seconds, peak memory; JSON-serialisable."""


class Learner(Protocol):
    """One member, as its aggregator sees it. All calls are idempotent for the same arguments."""

    @property
    def name(self) -> str:
        """Name of the end, cluster or member."""
        ...

    async def describe(self) -> Description:
        """Schema and sample counts."""
        ...

    async def moments(self) -> Moments:
        """Sums for standardisation over the training samples."""
        ...

    async def fit(self, round_: int, params: Params) -> Update:
        """Validate ``params``, train from them, answer with the update. Deterministic in (task seed, name, round, params)."""
        ...

    async def evaluate(self, params: Params) -> Mapping[str, Tally]:
        """Validate ``params`` on each end below."""
        ...

    async def finish(self, params: Params) -> Mapping[str, Any]:
        """Take over the final model: export, check against the one in use, promote or hold. Answers with what was done."""
        ...
