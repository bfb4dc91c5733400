"""What the coordinator keeps and shows: the one declaration behind the stores, the management API and its OpenAPI document."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, RootModel
from pydantic_core import from_json, to_json

from models.spec import TaskSpec

TaskState = Literal["submitted", "running", "finished", "failed", "cancelled"]
ModelState = Literal["candidate", "promoted", "retired"]
Metrics = dict[str, float | None]

ENDED: frozenset[TaskState] = frozenset({"finished", "failed", "cancelled"})
"""States in which nothing happens any more; a failed task may be submitted again."""


class Resource(BaseModel):
    """Base of everything the API shows. Times are read from milliseconds since the epoch, as the tables hold them."""

    model_config = ConfigDict(frozen=True)


class Participant(Resource):
    """A participant whose certificate the coordinator has seen; a gateway is enrolled by its first contact."""

    name: str = Field(description="Name in the certificate.")
    suite: str = Field(description="Suite of the certificate: gm or intl.")
    role: str = Field(description="Role in the certificate.")
    organisation: str = Field(description="Organisation in the certificate.")
    not_after: datetime = Field(description="End of the certificate's validity.")
    first_seen: datetime = Field(description="First contact.")
    last_seen: datetime = Field(description="Latest contact.")


class Task(Resource):
    """A federated learning task and where it stands."""

    id: str = Field(description="Identifier of the task, in all messages and files.")
    name: str = Field(description="Name of the task; its models are named after it.")
    spec: TaskSpec = Field(description="What was asked for, defaults filled in.")
    members: tuple[str, ...] = Field(description="Gateways that take part, as resolved at submission.")
    state: TaskState = Field(description="submitted, running, then one of finished, failed, cancelled.")
    reason: str = Field(description="Why it failed or was cancelled; empty otherwise.")
    submitted_by: str = Field(description="Operator who submitted it.")
    submitted: datetime = Field(description="Time of submission.")
    started: datetime | None = Field(description="Time of dispatch to the members.")
    ended: datetime | None = Field(description="Time of the end.")


class Event(Resource):
    """One step in the life of a task, durable and in order."""

    number: int = Field(description="Grows within a task; ask for what came after the last one seen.")
    task: str = Field(description="Identifier of the task.")
    at: datetime = Field(description="Time of the event.")
    kind: Literal["state", "round", "result"] = Field(
        description="state: the task changed its state. round: a round ended, at any layer. result: what a member made of the model."
    )
    body: dict[str, JsonValue] = Field(description="What happened; depends on the kind.")


class Model(Resource):
    """One version of a global model, with where it comes from and how well it did at each participant (clause 8.10.1)."""

    name: str = Field(description="Name of the model: that of the task that made it.")
    version: int = Field(description="1, 2, … within the name.")
    task: str = Field(description="Identifier of the task that made it.")
    parent: int | None = Field(description="Version in use when this one was made, and judged against it.")
    state: ModelState = Field(description="candidate: not in use. promoted: in use. retired: was in use.")
    reason: str = Field(description="Why it was promoted, or held back.")
    digest: str = Field(description="SHA-256 of the parameters (safetensors), hexadecimal.")
    size: int = Field(description="Bytes of the parameters.")
    members: tuple[str, ...] = Field(description="Gateways the model was made by, and is served at.")
    metrics: Metrics = Field(description="Validation metrics, pooled over all participants.")
    participants: dict[str, Metrics] = Field(description="Validation metrics of each end, by its name.")
    created: datetime = Field(description="Time of the end of training.")


class Version(Resource):
    """Which coordinator this is."""

    name: str = Field(description="Name of the coordinator.")
    version: str = Field(description="Version of fedfab.")


class Health(Resource):
    """Whether the coordinator can work."""

    status: Literal["ok"] = Field(description="ok: the database answers.")
    running: int = Field(description="Tasks that are running.")


class Document(RootModel[dict[str, JsonValue]]):
    """An OpenAPI document."""


class ParticipantList(Resource):
    """Participants."""

    items: list[Participant]


class TaskList(Resource):
    """Tasks."""

    items: list[Task]


class EventList(Resource):
    """Events of a task."""

    items: list[Event]


class ModelList(Resource):
    """Models."""

    items: list[Model]


def now_ms() -> int:
    """Milliseconds since the epoch, UTC."""
    return time.time_ns() // 1_000_000


def plain(value: object) -> JsonValue:
    """``value`` as JSON can hold it: dataclasses and models become objects; a number that is not finite becomes null."""
    found: JsonValue = from_json(to_json(value, inf_nan_mode="null"))
    return found
