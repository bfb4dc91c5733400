"""The management API: what an operator may ask of a coordinator. The table at the end is the whole of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from importlib.metadata import version as installed
from typing import Any

from pydantic import Field

from common.tasklog import Level, TaskLogs
from coordinator.contacts import Contacts
from coordinator.operations import Inputs, Operation, document
from coordinator.registry import Registry
from coordinator.resources import (
    Document,
    EventList,
    Health,
    Model,
    ModelList,
    ParticipantList,
    Task,
    TaskList,
    TaskState,
    Version,
)
from coordinator.scheduler import Scheduler
from coordinator.tasks import Tasks
from models.spec import TaskSpec
from trust.identity import Peer


@dataclass(frozen=True)
class Services:
    """What the calls work on."""

    name: str
    tasks: Tasks
    registry: Registry
    contacts: Contacts
    scheduler: Scheduler
    logs: TaskLogs


class NewTask(Inputs):
    """A task to run."""

    body: TaskSpec


class TaskFilter(Inputs):
    """Which tasks to show."""

    state: TaskState | None = Field(default=None, description="Only tasks in this state.")
    limit: int = Field(default=100, ge=1, le=1000, description="How many at most, latest first.")


class OneTask(Inputs):
    """Names a task."""

    task: str = Field(min_length=1, max_length=64, description="Identifier of the task.")


class EventsOfTask(OneTask):
    """Where to go on in the events of a task."""

    after: int = Field(default=0, ge=0, le=2**53, description="Number of the last event already seen.")
    limit: int = Field(default=500, ge=1, le=5000, description="How many at most.")
    wait: float = Field(
        default=0.0, ge=0.0, le=60.0, description="Seconds to wait for the first, while the task goes on."
    )


class LogOfTask(OneTask):
    """Which lines of the log of a task."""

    level: Level = Field(default="debug", description="The least level.")


class ModelFilter(Inputs):
    """Which models to show."""

    name: str | None = Field(default=None, max_length=64, description="Only versions of this model.")


class OneModel(Inputs):
    """Names a model."""

    name: str = Field(min_length=1, max_length=64, description="Name of the model.")


class OneVersion(OneModel):
    """Names a version of a model."""

    version: int = Field(ge=1, le=2**31 - 1, description="Version of the model.")


async def version(services: Services, caller: Peer, inputs: Inputs) -> Version:
    """Show which coordinator this is, and its version."""
    return Version(name=services.name, version=installed("fedfab"))


async def health(services: Services, caller: Peer, inputs: Inputs) -> Health:
    """Show whether the coordinator can work."""
    return Health(status="ok", running=len(await services.tasks.find("running", limit=1000)))


async def openapi(services: Services, caller: Peer, inputs: Inputs) -> Document:
    """Show this document."""
    return Document(openapi_document())


async def list_participants(services: Services, caller: Peer, inputs: Inputs) -> ParticipantList:
    """List who is enrolled, and when each was last in contact."""
    return ParticipantList(items=await services.contacts.all())


async def submit_task(services: Services, caller: Peer, inputs: NewTask) -> Task:
    """Submit a task.

    It is dispatched to its members at once; one that is not connected gets it when it returns (clauses 8.2, 8.3).
    """
    return await services.scheduler.submit(inputs.body, by=caller.name)


async def list_tasks(services: Services, caller: Peer, inputs: TaskFilter) -> TaskList:
    """List tasks, latest first."""
    states = () if inputs.state is None else (inputs.state,)
    return TaskList(items=await services.tasks.find(*states, limit=inputs.limit))


async def show_task(services: Services, caller: Peer, inputs: OneTask) -> Task:
    """Show a task."""
    return await services.tasks.get(inputs.task)


async def task_events(services: Services, caller: Peer, inputs: EventsOfTask) -> EventList:
    """List what happened in a task, and wait for more.

    Ask again with `after` set to the number of the last event to follow the task; the call answers as soon as there is a new one.
    """
    found = await services.tasks.events(inputs.task, after=inputs.after, limit=inputs.limit, wait_s=inputs.wait)
    return EventList(items=found)


async def task_log(services: Services, caller: Peer, inputs: LogOfTask) -> bytes:
    """Download what the coordinator logged of a task, as JSON lines.

    The oldest lines come first. What a gateway logged of the task stays there: `fedfab gateway logs`.
    """
    await services.tasks.get(inputs.task)
    return await asyncio.to_thread(lambda: b"".join(services.logs.lines(inputs.task, inputs.level)))


async def cancel_task(services: Services, caller: Peer, inputs: OneTask) -> Task:
    """Cancel a task, at the members too."""
    return await services.scheduler.cancel(inputs.task, by=caller.name)


async def resume_task(services: Services, caller: Peer, inputs: OneTask) -> Task:
    """Go on with a task that failed, after its last finished round."""
    return await services.scheduler.resume(inputs.task, by=caller.name)


async def list_models(services: Services, caller: Peer, inputs: ModelFilter) -> ModelList:
    """List models with their lineage and the metrics of each participant."""
    return ModelList(items=await services.registry.find(inputs.name))


async def show_model(services: Services, caller: Peer, inputs: OneVersion) -> Model:
    """Show a version of a model."""
    return await services.registry.get(inputs.name, inputs.version)


async def model_params(services: Services, caller: Peer, inputs: OneVersion) -> bytes:
    """Download the parameters of a version, as safetensors."""
    return await services.registry.params(inputs.name, inputs.version)


async def promote_model(services: Services, caller: Peer, inputs: OneVersion) -> Model:
    """Put a version in use at all its members."""
    return await services.scheduler.promote(inputs.name, inputs.version, by=caller.name)


async def roll_back_model(services: Services, caller: Peer, inputs: OneModel) -> Model:
    """Put the version back in use that the present one replaced, at all its members."""
    return await services.scheduler.roll_back(inputs.name, by=caller.name)


OPERATIONS: tuple[Operation[Services, Any], ...] = (
    Operation("GET", "/version", version, Inputs, Version),
    Operation("GET", "/health", health, Inputs, Health),
    Operation("GET", "/openapi.json", openapi, Inputs, Document),
    Operation("GET", "/participants", list_participants, Inputs, ParticipantList),
    Operation("POST", "/tasks", submit_task, NewTask, Task, status=201, refusals=[409]),
    Operation("GET", "/tasks", list_tasks, TaskFilter, TaskList),
    Operation("GET", "/tasks/{task}", show_task, OneTask, Task, refusals=[404]),
    Operation("GET", "/tasks/{task}/events", task_events, EventsOfTask, EventList, refusals=[404]),
    Operation("GET", "/tasks/{task}/log", task_log, LogOfTask, None, refusals=[404]),
    Operation("POST", "/tasks/{task}/cancel", cancel_task, OneTask, Task, refusals=[404, 409]),
    Operation("POST", "/tasks/{task}/resume", resume_task, OneTask, Task, refusals=[404, 409]),
    Operation("GET", "/models", list_models, ModelFilter, ModelList),
    Operation("GET", "/models/{name}/versions/{version}", show_model, OneVersion, Model, refusals=[404]),
    Operation("GET", "/models/{name}/versions/{version}/params", model_params, OneVersion, None, refusals=[404]),
    Operation("POST", "/models/{name}/versions/{version}/promote", promote_model, OneVersion, Model, refusals=[404]),
    Operation("POST", "/models/{name}/rollback", roll_back_model, OneModel, Model, refusals=[404, 409]),
)
"""Every call there is. Nothing else is served under the prefix, and all of it is for operators alone."""


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document of this API; `fedfab coordinator openapi` prints it."""
    return document(
        OPERATIONS,
        title="fedfab coordinator",
        description="Management of federated learning tasks and models. Mutual TLS; the certificate must have the role operator.",
        version=installed("fedfab"),
    )
