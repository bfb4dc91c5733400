"""What a gateway can be told: the one declaration that gives the parser, the checks, the sample and the documentation.

`gateway.configfile` reads these models from TOML and adds file and line to every complaint; `gateway.checks` holds what no single
section can know (references, units). The sections of sources belong to their connectors (`connectors.registry`).
"""

from __future__ import annotations

from pydantic import Field

from common.options import Log, Service
from connectors.contract import SourceConfig
from gateway.config.inference import Inference
from gateway.config.layout import LAYOUT
from gateway.config.machines import Cluster, ClusterField, End, Label, RowRule
from gateway.config.member import Coordinator, Trust
from gateway.config.process import Gateway, Workers
from gateway.config.section import Section, named
from gateway.config.seeing import AlertRule, Alerts, Email, Metrics, Mqtt, Webhook, rules_in_force
from gateway.config.store import StoreOptions
from models.schema import Schema

__all__ = [
    "AlertRule",
    "Alerts",
    "Cluster",
    "ClusterField",
    "Config",
    "Coordinator",
    "Email",
    "End",
    "Gateway",
    "Inference",
    "Label",
    "Log",
    "Metrics",
    "Mqtt",
    "RowRule",
    "Service",
    "StoreOptions",
    "Trust",
    "Webhook",
    "Workers",
]


class Config(Section):
    """The whole configuration of one gateway."""

    version: int = Field(
        default=LAYOUT.version,
        ge=1,
        le=LAYOUT.version,
        description="Version of the files' layout; an older one works, and `fedfab gateway config migrate` brings it here.",
    )
    gateway: Gateway
    trust: Trust | None = None
    coordinator: Coordinator | None = None
    store: StoreOptions = Field(default_factory=StoreOptions)
    inference: Inference = Field(default_factory=Inference)
    workers: Workers = Field(default_factory=Workers)
    log: Log = Field(default_factory=Log)
    service: Service = Field(default_factory=Service)
    metrics: Metrics = Field(default_factory=Metrics)
    alerts: Alerts = Field(default_factory=Alerts)
    alert_rules: tuple[AlertRule, ...] = Field(default=(), alias="alert")
    sources: tuple[SourceConfig, ...] = Field(default=(), alias="source")
    clusters: tuple[Cluster, ...] = Field(default=(), alias="cluster")
    ends: tuple[End, ...] = Field(default=(), alias="end")

    def source(self, name: str) -> SourceConfig:
        """The source of this name. Raises KeyError."""
        return named(self.sources, name)

    def cluster(self, name: str) -> Cluster:
        """The cluster of this name. Raises KeyError."""
        return named(self.clusters, name)

    def end(self, name: str) -> End:
        """The end of this name. Raises KeyError."""
        return named(self.ends, name)

    def ends_of(self, cluster: str) -> tuple[End, ...]:
        """Ends of a cluster, in the order of the file."""
        return tuple(end for end in self.ends if end.cluster == cluster)

    def schema_of(self, cluster: str) -> Schema:
        """Schema of a cluster: its features and its label. Raises KeyError."""
        return self.cluster(cluster).row_schema

    @property
    def schemas(self) -> dict[str, Schema]:
        """Schema of each end, by its name."""
        return {end.name: self.schema_of(end.cluster) for end in self.ends}

    @property
    def rules(self) -> tuple[AlertRule, ...]:
        """The alert rules in force: those shipped, and those of the file over them."""
        return rules_in_force(self.alerts, self.alert_rules)
