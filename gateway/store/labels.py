"""Labels are made when rows are read, because "how much remains" is known only after the run has ended, while stored rows never change."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Labelling:
    """How the stored label column becomes the label."""

    rule: Literal["field", "remaining"]
    """field: it is the label. remaining: it counts up, and the label is what is left to the run's last count."""
    cap: float | None = None
    """Upper bound of what remains."""


def labeller(
    labelling: Labelling, history: Iterable[tuple[NDArray[np.float64], NDArray[np.float64]]]
) -> Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]:
    """Labels of any part of a history, which is gone through once (group and stored label, part by part): `label` in bounded memory."""
    if labelling.rule == "field":
        return lambda group, stored: stored
    last: dict[float, float] = {}
    newest = np.nan
    for group, stored in history:
        known = ~np.isnan(group) & ~np.isnan(stored)
        for run, count in zip(group[known].tolist(), stored[known].tolist(), strict=True):
            last[run] = max(last.get(run, -np.inf), count)
            newest = run

    def part(group: NDArray[np.float64], stored: NDArray[np.float64]) -> NDArray[np.float64]:
        ends = np.array([last.get(run, np.nan) if run != newest else np.nan for run in group.tolist()])
        labels = ends - stored
        return labels if labelling.cap is None else np.minimum(labels, labelling.cap)

    return part


def label(labelling: Labelling, group: NDArray[np.float64], stored: NDArray[np.float64]) -> NDArray[np.float64]:
    """Labels [n] of rows in the order of time; NaN where there is none (yet).

    With "remaining", a run (rows of equal ``group``) has ended when a later run was seen, so the newest one is unlabelled.
    """
    if labelling.rule == "field":
        return stored
    labels = np.full(len(stored), np.nan)
    known = np.flatnonzero(~np.isnan(group) & ~np.isnan(stored))
    if len(known):
        _, run = np.unique(group[known], return_inverse=True)
        last = np.full(int(run.max()) + 1, -np.inf)
        np.maximum.at(last, run, stored[known])
        labels[known] = np.where(run == run[-1], np.nan, last[run] - stored[known])
    return labels if labelling.cap is None else np.minimum(labels, labelling.cap)
