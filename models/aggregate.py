"""The rule that joins what members learned: FedAvg's mean by samples (McMahan et al. 2017, algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError
from models.learner import Params

BLOCK = 1 << 15
"""Values handled at a time, so that all temporaries stay in the processor's cache."""


class Mean:
    """Weighted mean of updates as they come, by name, in float64; the same updates in the same order give the same bits.

    ``like`` holds the parameters that were sent out: an update may leave names out, but not bring others or other shapes.
    Without it, the first update that brings a name sets its shape. A refused update leaves the mean as it was.
    """

    def __init__(self, like: Params | None = None) -> None:
        self._like = like
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._weights: dict[str, float] = {}
        self._block = np.empty(BLOCK)

    def add(self, params: Params, weight: float, member: str = "") -> None:
        """Take in an update with its weight (samples); a weight of 0 changes nothing.

        Raises ModelError FF-MODEL-006 for an unknown name, a wrong shape or a weight that is negative or not finite,
        FF-MODEL-007 for a value that is not finite; both name ``member``.
        """
        if not (math.isfinite(weight) and weight >= 0):
            raise _refused(member, f"weight {weight}", "a number of samples, 0 or more")
        for name, value in params.items():
            self._check(name, value, member)
        if weight == 0:
            return
        for name, value in params.items():
            if name not in self._sums:
                self._sums[name] = np.zeros(value.shape)
                self._weights[name] = 0.0
            self._weights[name] += weight
            sums, flat = self._sums[name].reshape(-1), value.reshape(-1)
            for part in _blocks(flat.size):
                product = self._block[: part.stop - part.start]
                product[:] = flat[part]
                product *= weight
                sums[part] += product

    def result(self, previous: Params) -> Params:
        """The mean, float32; a name nobody sent keeps its value in ``previous``. Callable at any time."""
        return previous | {name: self._mean(name) for name in self._sums}

    def _mean(self, name: str) -> NDArray[np.float32]:
        sums = self._sums[name].reshape(-1)
        mean = np.empty(sums.size, dtype=np.float32)
        for part in _blocks(sums.size):
            mean[part] = np.divide(sums[part], self._weights[name], out=self._block[: part.stop - part.start])
        return mean.reshape(self._sums[name].shape)

    def _check(self, name: str, value: NDArray[np.float32], member: str) -> None:
        known: Params | dict[str, NDArray[np.float64]] = self._sums if self._like is None else self._like
        if self._like is not None and name not in self._like:
            raise _refused(member, f'a parameter "{name}"', "only parameters of the model that was sent out")
        if name in known and value.shape != known[name].shape:
            raise _refused(member, f"{name} of shape {value.shape}", f"shape {known[name].shape}")
        flat = value.reshape(-1)
        if not all(np.isfinite(flat[part]).all() for part in _blocks(flat.size)):
            raise ModelError(
                "FF-MODEL-007",
                f'the update of "{member}" holds a value in {name} that is not a finite number',
                hint="its training diverged: lower the learning rate, or look at that member's data for extreme values",
            )


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK))


def _refused(member: str, got: str, expected: str) -> ModelError:
    return ModelError(
        "FF-MODEL-006",
        f'the update of "{member}" has {got}, expected {expected}',
        hint="this member runs another task, schema or version of fedfab than the others; check it and start the task again",
    )
