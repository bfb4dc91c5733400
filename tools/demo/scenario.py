"""What a demo is made of: which ends, in which clusters, at which gateways, what they learn, and what they are judged on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.schema import FieldSpec, Schema
from models.spec import TaskSpec
from tools.plant.config import Protocol


@dataclass(frozen=True, slots=True)
class EndPlan:
    """One machine: which cluster it belongs to, how its gateway reads it, and what is to come of it."""

    name: str
    cluster: str
    serve: Protocol
    unit: int
    """Its Modbus unit id, where it is read by Modbus."""
    served: tuple[str, ...]
    """All fields the plant serves, in the order of its registers."""
    rows: int
    """Rows of its recorded runs."""
    runs: frozenset[int]
    """Its recorded runs; once a row of any other run has come, they are complete."""
    machine: str
    """Its section of the plant file."""


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """Ends of one schema at one gateway."""

    name: str
    gateway: str
    fields: Mapping[str, str]
    """Features in order, with their units."""
    limits: Mapping[str, tuple[float, float]]
    """Plausible range of a feature; a value outside is rejected by the gateway."""
    cap: float
    """Upper bound of the label, remaining cycles."""

    @property
    def schema(self) -> Schema:
        """What its rows look like, as the gateway declares it."""
        fields = tuple(FieldSpec(name=name, unit=unit) for name, unit in self.fields.items())
        return Schema(fields=fields, label=FieldSpec(name="remaining", unit="cycles"))


@dataclass(frozen=True, slots=True)
class TestSet:
    """Windows of machines that were never shown to a gateway."""

    x: NDArray[np.float32]
    """Raw units, shape (n, window, f)."""
    y: NDArray[np.float32]
    """Remaining cycles, shape (n,)."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One demo, ready to be laid out in a folder."""

    data: str
    """As given on the command line."""
    about: str
    """One sentence for the report."""
    clusters: tuple[ClusterPlan, ...]
    ends: tuple[EndPlan, ...]
    tick_s: float
    """Seconds from cycle to cycle of the plant."""
    spec: TaskSpec
    """The task; name and layer differ from run to run."""
    test: Mapping[str, TestSet]
    """By cluster. Clusters of one schema share one."""
    files: Mapping[Path, bytes]
    """What the plant file refers to, relative to it."""

    @property
    def gateways(self) -> tuple[str, ...]:
        """Names of the gateways, each once."""
        return tuple(dict.fromkeys(cluster.gateway for cluster in self.clusters))

    def cluster(self, name: str) -> ClusterPlan:
        """The cluster of this name."""
        return next(cluster for cluster in self.clusters if cluster.name == name)

    def ends_at(self, gateway: str) -> tuple[EndPlan, ...]:
        """Ends of all clusters of a gateway."""
        return tuple(end for end in self.ends if self.cluster(end.cluster).gateway == gateway)
