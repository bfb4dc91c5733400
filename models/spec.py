"""What a task asks for: the one declaration that gives the parser, the checks and the documentation of a task file."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Layer = Literal["end", "cluster", "cloud"]
Kind = Literal["regression", "classification"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=48)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSpec(_Section):
    """How each end turns its feature rows into samples."""

    window: int = Field(
        default=1, ge=1, le=4096, description="Rows in one sample; 1 learns from single rows (a table)."
    )
    stride: int = Field(default=1, ge=1, description="Rows between the starts of two windows.")
    holdout: float = Field(
        default=0.2, ge=0.0, lt=1.0, description="Share of each end's data kept for validation, never trained on."
    )
    holdout_by: Literal["group", "time"] = Field(
        default="group", description="Hold out whole groups (runs, engines), or the most recent part."
    )


class NetworkSpec(_Section):
    """`encoder -> trunk -> head`. Ends of one schema share the encoder; all share trunk and head."""

    encoder: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = Field(
        default=(64,), min_length=1, description="Widths of the encoder's layers, one encoder for each schema."
    )
    trunk: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = Field(
        default=(32,), min_length=1, description="Widths of the layers all plants share."
    )


class TrainingSpec(_Section):
    """Local training and the rule that joins what the ends learned."""

    rule: Literal["fedavg", "fedprox"] = Field(
        default="fedavg", description="fedavg: mean by samples (McMahan 2017). fedprox: with a proximal term (Li 2020)."
    )
    mu: float = Field(default=0.01, ge=0.0, description="Strength of FedProx's proximal term; fedavg ignores it.")
    epochs: int = Field(default=1, ge=1, description="Passes over the local data in one round.")
    batch_size: int = Field(default=128, ge=1, description="Samples in one step of gradient descent.")
    learning_rate: float = Field(default=1e-3, gt=0.0, description="Step size of Adam in the first round.")
    learning_rate_decay: float = Field(
        default=1.0, gt=0.0, le=1.0, description="Factor on the step size from one round to the next; 1: constant."
    )
    weight_decay: float = Field(default=0.0, ge=0.0, description="L2 regularisation.")


class RoundsSpec(_Section):
    """When to stop, how many must answer, how long to wait."""

    max: int = Field(default=30, ge=1, description="Rounds at most.")
    cluster: int = Field(default=1, ge=1, description="Rounds inside each cluster for one round of the cloud.")
    tolerance: float = Field(
        default=0.0,
        ge=0.0,
        description="Relative gain of the validation loss that still counts as progress; 0: never stop early.",
    )
    patience: int = Field(default=5, ge=1, description="Rounds without progress before the task has converged.")
    fraction: float = Field(
        default=1.0,
        gt=0.0,
        le=1.0,
        description="Share of the members asked in each round, whoever was asked least first, ties drawn from the seed; "
        "members are the gateways of layer cloud, the ends of layer cluster.",
    )
    quorum: float = Field(
        default=1.0, gt=0.0, le=1.0, description="Share of the members asked that must answer a round."
    )
    deadline_s: float = Field(
        default=120.0,
        gt=0.0,
        description="Seconds without any progress of a member before the round goes on without it, if the quorum can spare it.",
    )
    wait_s: float = Field(
        default=3600.0,
        ge=0.0,
        description="Seconds beyond the deadline that a round waits for silent members its quorum needs, before the task fails.",
    )
    autonomy_s: float = Field(
        default=300.0,
        ge=0.0,
        description="Seconds without the coordinator after which a gateway trains on by itself, until the coordinator is back; "
        "0: it waits.",
    )


class PrivacySpec(_Section):
    """Differential privacy of each member's update (clause 8.7.2). Off by default: noise costs accuracy."""

    clip_norm: float | None = Field(default=None, gt=0.0, description="L2 bound of an update; needed for noise.")
    noise_multiplier: float = Field(
        default=0.0, ge=0.0, description="Standard deviation of the Gaussian noise, in multiples of clip_norm."
    )
    delta: float = Field(default=1e-5, gt=0.0, lt=1.0, description="The delta at which epsilon is reported.")

    @model_validator(mode="after")
    def _noise_needs_a_bound(self) -> Self:
        if self.noise_multiplier > 0 and self.clip_norm is None:
            raise ValueError("noise_multiplier needs clip_norm: without a bound on the update, noise hides nothing")
        return self


class TaskSpec(_Section):
    """One federated learning task (clause 3.3), as written in a task file."""

    name: Name = Field(description="Name of the task; models are named after it.")
    kind: Kind = Field(default="regression", description="What the head predicts.")
    classes: int = Field(default=2, ge=2, le=1000, description="Number of classes, for classification.")
    layer: Layer = Field(
        default="cloud",
        description="end: every end alone. cluster: each gateway its cluster (layer 1). cloud: both layers.",
    )
    members: tuple[str, ...] = Field(default=(), description="Gateways that take part; empty: all that are enrolled.")
    clusters: tuple[str, ...] = Field(default=(), description="Clusters that take part; empty: all of each member.")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Everything random follows from it.")
    data: DataSpec = DataSpec()
    network: NetworkSpec = NetworkSpec()
    training: TrainingSpec = TrainingSpec()
    rounds: RoundsSpec = RoundsSpec()
    privacy: PrivacySpec = PrivacySpec()

    @property
    def outputs(self) -> int:
        """Width of the head: 1 for regression, one score for each class otherwise."""
        return 1 if self.kind == "regression" else self.classes
