"""What came of a demo: the figures of `results.json`, and what the report draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from models.spec import Layer


class Compared(BaseModel):
    """Errors on the unseen machines of one cluster's kind."""

    model_config = ConfigDict(frozen=True)

    cluster: float
    """The cluster's own model (layer 1)."""
    federated: float
    """The model of both layers."""
    joined: float
    """The same network trained on all data in one place."""


class Arrived(BaseModel):
    """Rows of one end."""

    model_config = ConfigDict(frozen=True)

    sent: int
    """Rows of its recorded runs, as the plant made them."""
    stored: int
    """Rows of these runs in the gateway's feature store."""


class Results(BaseModel):
    """`results.json`."""

    model_config = ConfigDict(frozen=True)

    metric: Literal["rmse"] = "rmse"
    better: Literal["lower"] = "lower"
    unit: Literal["cycles"] = "cycles"
    data: str
    seed: int
    suite: str
    ends: dict[str, float]
    """Each end alone, on unseen machines of its kind."""
    clusters: dict[str, float]
    """Each cluster by itself."""
    federated: float
    """Both layers, over the unseen machines of all clusters together."""
    joined: float
    by_cluster: dict[str, Compared]
    """Federated and joined on each cluster's kind, to set beside the ends and clusters."""
    rows: dict[str, Arrived]
    test_windows: dict[str, int]
    seconds: float
    """From the command to the table."""
    phases: dict[str, float]
    """Seconds of each phase."""
    versions: dict[str, str]


@dataclass(slots=True)
class Curves:
    """Validation error after each round: by layer, then by name, (rounds trained, error) in order."""

    series: dict[Layer, dict[str, list[tuple[int, float]]]] = field(default_factory=dict)

    def add(self, layer: Layer, report: Mapping[str, Any]) -> None:
        """Take in a round's report, of the model as it entered the round; both layers are drawn end by end."""
        if layer == "cloud" and report["layer"] != "cloud":
            return
        trained = int(report["round"]) - (0 if report["final"] else 1)
        found = report["per_end"] if layer == "cloud" else {report["name"]: report["metrics"]}
        for name, metrics in found.items():
            if "rmse" in metrics:
                points = self.series.setdefault(layer, {}).setdefault(str(name).rpartition("/")[2], [])
                points.append((trained, float(metrics["rmse"])))
