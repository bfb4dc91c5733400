"""How much the feature store keeps, and what gives way when that is reached."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.config.section import Section

GB = 10**9
DAY_S = 86_400


class Bounds(Section):
    """Bounds of one layer; what is beyond them goes, the oldest first, and is counted."""

    max_gb: float = Field(gt=0, description="Most this layer may hold, GB (10⁹ bytes of stored blocks).")
    max_days: float | None = Field(
        default=None, gt=0, description="Drop what was stored longer ago. Left out: age does not matter."
    )


class RawBounds(Bounds):
    """Samples as they came from the machines. What is beyond the bounds goes, the oldest first, and is counted."""

    max_gb: float = Field(default=8.0, gt=0, description="Most this layer may hold, GB (10⁹ bytes of stored blocks).")
    when_full: Literal["drop_oldest", "keep_unprepared", "stop"] = Field(
        default="drop_oldest",
        description="What happens at a bound. drop_oldest: the oldest samples go. keep_unprepared: only samples go that all features have "
        "been made of; where none are left, new ones are refused. stop: nothing goes, new ones are refused. Refused sources wait, try "
        "again and go on where they stopped.",
    )


class FeatureBounds(Bounds):
    """Rows that models learn from and predict with. The newest rows of an end stay whatever their age."""

    max_gb: float = Field(default=4.0, gt=0, description="Most this layer may hold, GB (10⁹ bytes of stored blocks).")


class ResultBounds(Bounds):
    """Predictions that were given."""

    max_gb: float = Field(default=1.0, gt=0, description="Most this layer may hold, GB (10⁹ bytes of stored answers).")


class StoreOptions(Section):
    """How much the feature store keeps of each layer."""

    keep_free_gb: float = Field(
        default=0.5,
        ge=0,
        description="Where less disk space is free, the store grows no more: its layers count as full at what they hold then.",
    )
    raw: RawBounds = Field(default_factory=RawBounds, description="Bounds of the raw layer.")
    features: FeatureBounds = Field(default_factory=FeatureBounds, description="Bounds of the feature layer.")
    results: ResultBounds = Field(default_factory=ResultBounds, description="Bounds of the results layer.")
