"""Sums that members send in place of rows (moments, tallies): adding them by name is pooling the data."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError

Sums = dict[str, NDArray[np.float64]]


def add_by_name(parts: Iterable[Sums]) -> Sums:
    """The sum over all parts of each name; one that only some of them hold is kept.

    Raises ModelError FF-MODEL-010 for a value that is not finite, or whose shape is not that of the others.
    """
    total: Sums = {}
    for part in parts:
        for name, value in part.items():
            known = total.get(name)
            if not np.isfinite(value).all() or (known is not None and known.shape != value.shape):
                raise ModelError(
                    "FF-MODEL-010",
                    f"a member's sums {name} are not finite or of shape {value.shape}, "
                    f"expected finite{f' of shape {known.shape}' if known is not None else ''}",
                    hint="a member runs another task, schema or version of fedfab than the others, or its data overflowed",
                )
            total[name] = value if known is None else known + value
    return total
