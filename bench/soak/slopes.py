"""What a series of samples says about growth: a line by least squares behind the warm-up, and whether it is more than noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from rich.table import Table

WARM_UP, WARM_UP_S = 1 / 3, 300.0
"""Share of the samples, and seconds, set aside, whichever is more: caches fill, old models are kept, workers start."""
SIGNIFICANT = 5.0
"""Slope in standard errors (samples are correlated, so far above the usual 2)."""
HARMLESS = {"uss_mb": 6.0, "rss_mb": 6.0, "worker_uss_mb": 12.0, "latency_p50_ms": 5.0}
"""Growth in an hour that is not looked at; 3 of anything else."""


@dataclass
class Series:
    """Samples of one figure: time in seconds, and the value."""

    name: str
    points: list[tuple[float, float]] = field(default_factory=list)

    def fit(self) -> tuple[float, float]:
        """Growth in an hour, and how many standard errors it is above none."""
        warm = max(self.points[0][0] + WARM_UP_S, self.points[int(len(self.points) * WARM_UP)][0])
        times, values = np.array([point for point in self.points if point[0] >= warm]).T.reshape(2, -1)
        if len(times) < 4:
            return 0.0, 0.0
        hours = (times - times.mean()) / 3600
        slope = float(hours @ values / (hours @ hours))
        rest = values - values.mean() - slope * hours
        error = float(np.sqrt(rest @ rest / (len(times) - 2) / (hours @ hours)))
        return slope, slope / error if error else (np.inf if slope else 0.0)

    @property
    def suspicious(self) -> bool:
        """Whether it grows by more than noise and more than is harmless. What is on disk grows by design."""
        figure = self.name.rpartition("/")[2]
        slope, errors = self.fit()
        return figure != "disk_mb" and errors > SIGNIFICANT and slope > HARMLESS.get(figure, 3.0)

    def summary(self) -> dict[str, object]:
        """For the record."""
        slope, errors = self.fit()
        values = [value for _, value in self.points]
        return {
            "first": values[0],
            "last": values[-1],
            "greatest": max(values),
            "per_hour": slope,
            "standard_errors": errors if np.isfinite(errors) else None,
            "suspicious": self.suspicious,
        }


def table(series: Mapping[str, Series]) -> Table:
    """All series on one page."""
    shown = Table("figure", "first", "last", "greatest", "per hour", "standard errors", "")
    for name, one in series.items():
        slope, errors = one.fit()
        values = [value for _, value in one.points]
        verdict = "[bold red]grows[/]" if one.suspicious else ""
        figures = (f"{value:.1f}" for value in (values[0], values[-1], max(values), slope, errors))
        shown.add_row(name, *figures, verdict)
    return shown
