"""What this gateway does with the coordinator's words: start a task, cancel it, put a model in use.

Each task is one coroutine. Its record is on disk before the message that started it is acknowledged, so a restart takes every
unfinished task up again, from its checkpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import structlog
from pydantic import BaseModel, Field, ValidationError

from common.errors import FedfabError
from common.files import erase, write_atomic
from common.tasklog import bind
from federation.aggregate import Observe
from federation.context import Message
from federation.history import History
from federation.node import Node
from federation.remote import serve
from federation.rounds import RoundReport
from gateway.autonomy import Autonomy, Remembering
from gateway.clusters import Clusters
from gateway.config import Config
from gateway.errors import GatewayError, as_json
from gateway.modelstore import ModelStore
from gateway.workers import WorkerPool
from models.learner import Description, Learner, Moments, Params, Tally, Update
from models.spec import TaskSpec
from trust.identity import TrustStore

log = structlog.get_logger()

SHOWN = 20
"""Tasks in the status."""
KEPT = 200
"""Ended tasks whose record is kept; the oldest go first, with whatever they left behind."""

State = Literal["running", "finished", "failed", "cancelled"]
DONE: frozenset[State] = frozenset({"finished", "cancelled"})
"""A failed task may be resumed, and needs what it left behind."""


class Record(BaseModel):
    """One task at this gateway, as its folder remembers it."""

    task: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    """Its id; also the name of its folder."""
    coordinator: str
    spec: TaskSpec
    state: State = "running"
    reason: str = ""
    started: datetime
    ended: datetime | None = None
    results: dict[str, Any] = {}
    """What became of each model, by its name."""


class Programs:
    """All tasks of one gateway. Records and checkpoints lie in ``folder``, one folder for each task."""

    def __init__(self, config: Config, *, folder: Path, models: ModelStore, pool: WorkerPool) -> None:
        self.config = config
        self.folder = folder
        self.models = models
        self.pool = pool
        self.records = {record.task: record for record in _stored(folder)}
        self.history = History()
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._alone: dict[str, Autonomy] = {}
        self.node: Node | None = None

    @property
    def connected(self) -> bool:
        """Whether the coordinator can be reached now."""
        return self.node is not None and self.node.connected.is_set()

    async def run(self, node: Node, trust: TrustStore) -> None:
        """Take up unfinished tasks, then do what the coordinator says; until cancelled."""
        self.node = node
        async with asyncio.TaskGroup() as group:
            for record in self.records.values():
                if record.state == "running":
                    self._start(group, node, record)
                elif record.state in DONE:  # a crash may have come between its end and this
                    await asyncio.to_thread(self._erase, record)
            async for message in node.unclaimed():
                try:
                    _require_coordinator(node, trust, message)
                    await self._handle(group, node, message)
                except (FedfabError, ValidationError, KeyError) as error:
                    log.error(
                        "message refused", kind=message.header.kind, sender=message.header.sender, error=str(error)
                    )
                await message.done()

    def status(self) -> list[dict[str, object]]:
        """Tasks, the latest first, with the newest report of each group; JSON-serialisable."""
        latest = sorted(self.records.values(), key=lambda record: record.started, reverse=True)[:SHOWN]
        return [
            {
                **record.model_dump(mode="json", exclude={"spec"}),
                "name": record.spec.name,
                "layer": record.spec.layer,
                "rounds": record.spec.rounds.max,
                "alone": record.task in self._alone and self._alone[record.task].active,
                "groups": self.history.of(record.task),
            }
            for record in latest
        ]

    async def _handle(self, group: asyncio.TaskGroup, node: Node, message: Message) -> None:
        meta = message.meta
        match message.header.kind:
            case "task.start" if meta["task"] not in self._jobs:
                record = Record(
                    task=meta["task"],
                    coordinator=message.header.sender,
                    spec=TaskSpec.model_validate(meta["spec"]),
                    started=datetime.now(UTC),
                )
                self._keep(record)
                self._start(group, node, record)
                await self._tidy()
            case "task.cancel" if meta["task"] in self._jobs:
                job = self._jobs[meta["task"]]
                state: State = "failed" if meta.get("resumable") else "cancelled"
                self._end(self.records[meta["task"]], state, f"{state} at {message.header.sender}")
                job.cancel()
                await asyncio.wait([job])  # it may be started again by the next message
            case "model.promote":
                self._promote(meta["task"], f"promoted by {message.header.sender}")
                if meta["task"] not in self._jobs:
                    await node.context(meta["task"]).close()  # the coordinator has all it asked for
            case "task.over":
                if (
                    ending := self._jobs.get(meta["task"])
                ) is not None:  # it ended without us, or just before a crash here
                    self._end(self.records[meta["task"]], "finished", f"over at {message.header.sender}")
                    ending.cancel()
                    await asyncio.wait([ending])
                await node.context(meta["task"]).close()
            case "task.start" | "task.cancel":
                pass  # said again, or over already
            case other:
                raise GatewayError("FF-PROGRAM-003", f'nothing is known here of messages of kind "{other}"')

    def _start(self, group: asyncio.TaskGroup, node: Node, record: Record) -> None:
        log.info("task starts", task=record.task, name=record.spec.name, layer=record.spec.layer)
        job = group.create_task(self._carry(node, record), name=f"task {record.task}")
        self._jobs[record.task] = job
        job.add_done_callback(lambda _: self._jobs.pop(record.task))

    async def _carry(self, node: Node, record: Record) -> None:
        """One task from where it stands to its end. Cancelled with the daemon, it stays unfinished, to be taken up again."""
        bind(record.task)
        context = node.context(record.task)

        async def observe(report: RoundReport) -> None:
            group = f"{report.name} alone" if report.autonomous else report.name
            self.history.note(record.task, group, report)
            await context.send(record.coordinator, "task.report", report.to_json())

        clusters = Clusters(
            self.config,
            record.spec,
            record.task,
            folder=self.folder / record.task,
            models=self.models,
            pool=self.pool,
        )
        try:
            if record.spec.layer == "cloud":
                learner = await self._member(node, clusters, observe)
                if isinstance(learner, Unable):
                    await serve(context, learner, aggregator=record.coordinator)
                    raise learner.reason
                await self._beside_autonomy(node, record, clusters, learner, observe)
            else:
                record.results = await clusters.learn(observe)
                await context.send(record.coordinator, "task.result", {"models": record.results})
                await context.close()
            self._end(record, "finished")
            log.info("task finished", results=record.results)
        except asyncio.CancelledError:
            if record.state != "running":
                await context.close()
            raise
        except Exception as error:  # one task's failure is no reason to stop reading and serving
            log.error("task failed", task=record.task, error=str(error), exc_info=not isinstance(error, FedfabError))
            self._end(record, "failed", str(error))
            with suppress(FedfabError):
                await context.send(record.coordinator, "task.result", {"error": as_json(error)})
        finally:
            with suppress(FedfabError):
                await self.pool.forget(record.task)
            if record.state in DONE:
                await asyncio.to_thread(self._erase, record)

    async def _beside_autonomy(
        self, node: Node, record: Record, clusters: Clusters, learner: Learner, observe: Observe
    ) -> None:
        """Answer the coordinator until the task is over, and train on while it is away."""
        folder = self.folder / record.task / "alone"
        remembering = Remembering(learner, record.spec, folder)
        autonomy = self._alone[record.task] = Autonomy(clusters, remembering, node.connected, folder, observe)
        alone = asyncio.create_task(autonomy.run())
        try:
            await serve(node.context(record.task), remembering, aggregator=record.coordinator)
        finally:
            alone.cancel()
            await asyncio.gather(alone, return_exceptions=True)
            del self._alone[record.task]

    async def _member(self, node: Node, clusters: Clusters, observe: Observe) -> Learner:
        """What the coordinator aggregates; a gateway that cannot take part says why to every call."""
        try:
            return await clusters.member(node.name, observe)
        except FedfabError as error:
            log.error("cannot take part", task=clusters.task, error=str(error))
            return Unable(node.name, error)

    def _promote(self, task: str, why: str) -> None:
        """Put the models in use that a task made here, held back or not: the coordinator's versions are of the whole task."""
        for name in self.models.names():
            for version in self.models.versions(name):
                evidence = self.models.evidence(name, version)
                if evidence.task_id == task and not evidence.autonomous:
                    self.models.promote(name, version, why)
                    log.info("model promoted", model=name, version=version, why=why)

    def _end(self, record: Record, state: State, reason: str = "") -> None:
        record.state, record.reason, record.ended = state, reason, datetime.now(UTC)
        self._keep(record)

    def _erase(self, record: Record) -> None:
        """Overwrite and delete what was only needed on the way; the record stays, for whoever asks what was done (9.4.1.1f)."""
        for path in (self.folder / record.task).iterdir():
            if path.name != "task.json":
                erase(path)

    async def _tidy(self) -> None:
        """Forget tasks that ended long ago, failed ones that nobody resumed too."""
        ended = sorted((one for one in self.records.values() if one.state != "running"), key=lambda one: one.started)
        for record in ended[:-KEPT]:
            del self.records[record.task]
            await asyncio.to_thread(erase, self.folder / record.task)

    def _keep(self, record: Record) -> None:
        self.records[record.task] = record
        write_atomic(self.folder / record.task / "task.json", record.model_dump_json(indent=1).encode())


class Unable:
    """A learner that answers every call with the reason why it cannot learn, so that its aggregator may go on without it."""

    def __init__(self, name: str, reason: FedfabError) -> None:
        self.name = name
        self.reason = reason

    async def describe(self) -> Description:
        """Raises the reason, as all calls do."""
        raise self.reason

    async def moments(self) -> Moments:
        """Raises the reason."""
        raise self.reason

    async def fit(self, round_: int, params: Params) -> Update:
        """Raises the reason."""
        raise self.reason

    async def evaluate(self, params: Params) -> Mapping[str, Tally]:
        """Raises the reason."""
        raise self.reason

    async def finish(self, params: Params) -> Mapping[str, Any]:
        """The reason: the others are done, and nothing more will be asked."""
        return {"error": str(self.reason)}


def _require_coordinator(node: Node, trust: TrustStore, message: Message) -> None:
    """Only a coordinator's certificate gives the right to start, cancel and deploy (clause 9.3.2)."""
    sender = node.participants.peer(message.header.sender, trust)
    if sender.role != "coordinator":
        raise GatewayError(
            "FF-PROGRAM-005",
            f'"{message.header.kind}" comes from {sender.name}, whose certificate says {sender.role}; only a coordinator may say this',
            hint="nothing was done; ask the operator of that participant what it is up to",
        )


def _stored(folder: Path) -> list[Record]:
    return [Record.model_validate_json(path.read_bytes()) for path in sorted(folder.glob("*/task.json"))]
