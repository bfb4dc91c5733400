"""Whether a new model may take the place of the one in use: not where it is worse anywhere (clause 8.10.1)."""

from __future__ import annotations

from collections.abc import Mapping

from models.metrics import primary
from models.spec import TaskSpec

NOISE = 1e-6
"""Relative difference of a metric that is rounding, not learning."""


def losses(
    spec: TaskSpec, before: Mapping[str, Mapping[str, float | None]], now: Mapping[str, Mapping[str, float | None]]
) -> list[str]:
    """Where the new model loses against the one in use, in words; empty where it loses nowhere.

    ``before`` and ``now`` are metrics by end, of the same hold-out; ends and metrics that only one of them has are not compared.
    """
    metric, better = primary(spec)
    sign = 1 if better == "lower" else -1
    found = []
    for end, metrics in before.items():
        old, new = metrics.get(metric), now.get(end, {}).get(metric)
        if old is not None and new is not None and sign * (new - old) > NOISE * abs(old):
            found.append(f"{metric} at {end} is {new:.6g}, was {old:.6g}")
    return found
