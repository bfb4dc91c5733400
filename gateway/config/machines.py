"""What is learned from: clusters, the fields of their rows, and the ends."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from connectors.contract import Name
from gateway.config.section import Section, named
from models.schema import FieldSpec, Schema

TagReference = Annotated[str, Field(pattern=r"^[^/]+/[^/]+$")]


class RowRule(Section):
    """When a feature row is made: exactly one of on_change and every_s."""

    on_change: str | None = Field(default=None, description="A row each time the value of this field changes.")
    every_s: float | None = Field(
        default=None, gt=0, description="A row every so many seconds in which anything arrived."
    )
    method: Literal["last", "mean"] = Field(
        default="last", description="With every_s: the last good value, or the mean of the good values of the interval."
    )
    wait_s: float = Field(
        default=2.0,
        ge=0,
        description="Rows stay open for samples that arrive out of order: they close so far behind the newest source time.",
    )
    clock_ahead_s: float = Field(
        default=300.0,
        gt=0,
        description="A sample from further in the gateway's future is rejected: its clock is wrong.",
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.on_change is None) == (self.every_s is None):
            raise ValueError('expected exactly one of on_change = "field" and every_s = seconds')
        if self.method == "mean" and self.every_s is None:
            raise ValueError('method = "mean" needs every_s')
        return self


class Label(Section):
    """What is learned: a measured field, or how much remains to the end of a run."""

    name: Name | None = Field(default=None, description="Name of the label; default: the field's, or 'remaining'.")
    field: str | None = Field(default=None, description="The field that holds the label; its role must be aux.")
    remaining: str | None = Field(
        default=None,
        description="The counting field (cycles, hours) whose distance to the run's last value is the label. "
        "A run is labelled once it has ended, that is, when a later run was seen. Needs group.",
    )
    cap: float | None = Field(
        default=None, gt=0, description="Upper bound of 'remaining': an early run is just healthy."
    )
    unit: str | None = Field(default=None, description="Unit of the label; default: the field's.")

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.field is None) == (self.remaining is None):
            raise ValueError('expected exactly one of field = "name" and remaining = "counting field"')
        if self.cap is not None and self.remaining is None:
            raise ValueError("cap belongs to remaining")
        return self

    @property
    def source(self) -> str:
        """The field the label is made from."""
        return self.field or self.remaining or ""


class ClusterField(Section):
    """One column of a feature row, its unit and how its samples are cleaned. A rejected sample is missing, never a zero."""

    name: Name = Field(description="Name of the field, unique in its cluster.")
    kind: Literal["number", "category"] = Field(default="number", description="A quantity, or one of a few values.")
    categories: tuple[str, ...] = Field(
        default=(),
        description="With kind category: texts that become 0, 1, 2 …; without them the value must be a number.",
    )
    unit: str = Field(default="", description="Unit in the row; samples are converted from the tag's unit.")
    role: Literal["feature", "aux"] = Field(
        default="feature", description="feature: an input of the network. aux: only trigger, group or label."
    )
    min: float | None = Field(default=None, description="Smaller values are rejected (in the field's unit).")
    max: float | None = Field(default=None, description="Greater values are rejected (in the field's unit).")
    max_rate_per_s: float | None = Field(
        default=None, gt=0, description="A value that moved faster since the last accepted one is rejected."
    )
    frozen_s: float | None = Field(
        default=None, gt=0, description="A value repeated for longer than this is rejected until it changes."
    )
    missing: Literal["hold", "drop"] = Field(
        default="hold",
        description="After a bad or rejected sample: hold the last good value, or leave the row's cell empty.",
    )
    max_hold_s: float | None = Field(
        default=None, gt=0, description="A value older than this at the time of the row is missing; default: any age."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is greater than max {self.max}")
        if self.categories and self.kind != "category":
            raise ValueError('categories need kind = "category"')
        if len(set(self.categories)) != len(self.categories):
            raise ValueError("categories must differ from each other")
        return self


class Cluster(Section):
    """Ends of one schema (clause 5.3): their fields, when a row is made, what is learned."""

    name: Name = Field(description="Name of the cluster, unique within the gateway.")
    rows: RowRule = Field(description="When a feature row is made.")
    group: str | None = Field(default=None, description="The field that tells runs apart (a run or part number).")
    label: Label = Field(description="What is learned.")
    fields: tuple[ClusterField, ...] = Field(alias="field", min_length=1, description="Columns of a row.")

    def field(self, name: str) -> ClusterField:
        """The field of this name. Raises KeyError."""
        return named(self.fields, name)

    @property
    def features(self) -> tuple[ClusterField, ...]:
        """The inputs of the network, in the order of the file."""
        return tuple(field for field in self.fields if field.role == "feature")

    @property
    def row_schema(self) -> Schema:
        """What the data of each end of this cluster looks like."""
        source = self.field(self.label.source)
        name = self.label.name or (source.name if self.label.field else "remaining")
        unit = source.unit if self.label.unit is None else self.label.unit
        kind = source.kind if self.label.field else "number"
        return Schema(
            fields=tuple(FieldSpec(name=field.name, kind=field.kind, unit=field.unit) for field in self.features),
            label=FieldSpec(name=name, kind=kind, unit=unit),
        )


class End(Section):
    """One machine that learns: which tag feeds which field of its cluster."""

    name: Name = Field(description="Name of the end, unique within the gateway.")
    cluster: str = Field(description="The cluster it belongs to.")
    tags: dict[str, TagReference] = Field(description='For each field of the cluster: "source/tag".')
