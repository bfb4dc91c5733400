"""The two shapes data takes inside the gateway: columns of samples as they came (made by the connectors), and columns of feature rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from connectors.samples import Kind, SampleBlock

__all__ = ["FeatureBlock", "Kind", "SampleBlock"]


@dataclass(frozen=True, slots=True)
class FeatureBlock:
    """n feature rows of one end in the order of time."""

    time: NDArray[np.int64]
    """[n] nanoseconds, strictly increasing."""
    x: NDArray[np.float64]
    """[n, f] in the order of the cluster's features; NaN is missing."""
    group: NDArray[np.float64]
    """[n] value of the group field, 0 where the cluster has none."""
    label: NDArray[np.float64]
    """[n] value of the field the label is made from (`gateway.store.labels`); NaN is missing."""

    def __len__(self) -> int:
        return len(self.time)

    def part(self, start: int, end: int) -> FeatureBlock:
        """The rows from position ``start`` to before ``end``."""
        rows = slice(start, end)
        return FeatureBlock(self.time[rows], self.x[rows], self.group[rows], self.label[rows])

    def after(self, time: int) -> FeatureBlock:
        """The rows later than this time."""
        return self.part(int(np.searchsorted(self.time, time, side="right")), len(self))

    def upto(self, time: int) -> FeatureBlock:
        """The rows not later than this time."""
        return self.part(0, int(np.searchsorted(self.time, time, side="right")))
