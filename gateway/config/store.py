"""How much the feature store keeps, and what gives way when that is reached."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.config.section import Section

GB = 10**9
DAY_S = 86_400


class Layer(Section):
    """Bounds of one layer of the store; what is beyond them goes, the oldest first, and is counted."""

    max_gb: float = Field(default=4.0, gt=0, description="Most this layer may hold, GB (10⁹ bytes of stored blocks).")
    max_days: float | None = Field(
        default=None, gt=0, description="Drop what was stored longer ago. Left out: age does not matter."
    )


class RawLayer(Layer):
    """Bounds of the raw layer: samples as they came from the machines."""

    max_gb: float = Field(default=8.0, gt=0, description="Most the raw layer may hold, GB (10⁹ bytes of stored blocks).")
    when_full: Literal["drop_oldest", "keep_unprepared", "stop"] = Field(
        default="drop_oldest",
        description="What happens at max_gb. drop_oldest: the oldest samples go. keep_unprepared: only samples go that all features have "
        "been made of; if none are left, new ones are refused. stop: new ones are refused; refused sources wait and try again.",
    )


class StoreOptions(Section):
    """How much the feature store keeps of each layer."""

    keep_free_gb: float = Field(
        default=0.5, ge=0, description="Where less disk space is free, the store grows no more: new data displaces old, as when full."
    )
    raw: RawLayer = Field(default_factory=RawLayer)
    features: Layer = Field(default_factory=Layer)
    results: Layer = Field(default_factory=lambda: Layer(max_gb=1.0))
