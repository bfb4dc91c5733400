"""The scheduler (clause 7.2): takes tasks, dispatches their programs to the members, drives them to their end, deploys the model.

Everything it must not forget is in the database, the mailbox or a checkpoint, so after a restart each task goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import structlog
from pydantic import TypeAdapter, ValidationError

from common.errors import FedfabError
from common.tasklog import bind
from coordinator.contacts import Contacts
from coordinator.errors import ConflictError, CoordinatorError
from coordinator.registry import Registry
from coordinator.resources import ENDED, Model, Task
from coordinator.slots import Slots
from coordinator.tasks import Tasks
from federation.aggregate import aggregate
from federation.checkpoint import Checkpoint
from federation.context import Message
from federation.history import History
from federation.node import Node
from federation.remote import RemoteLearner
from federation.rounds import RoundReport
from models.spec import TaskSpec

log = structlog.get_logger()

ALL = 1_000_000
"""Tasks taken up again after a restart, at most."""
_WAIT_S = 3600.0


class Scheduler:
    """Runs tasks inside `at_work`, at most ``running`` aggregations at a time; further ones wait as submitted."""

    def __init__(
        self, node: Node, tasks: Tasks, registry: Registry, contacts: Contacts, *, checkpoints: Path, running: int
    ) -> None:
        self._node, self._tasks, self._registry, self._contacts = node, tasks, registry, contacts
        self._checkpoints = checkpoints
        self.history = History()
        self.slots = Slots(running)
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._group = asyncio.TaskGroup()

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Inside, what was unfinished goes on, and members are heard. At the end tasks are left as they are, to be taken up again."""
        async with self._group:
            hearing = self._group.create_task(self._hear(), name="reports of members")
            for task in reversed(await self._tasks.find("submitted", "running", limit=ALL)):
                self._start(task)
            yield
            for job in (hearing, *self._jobs.values()):
                job.cancel()

    async def submit(self, spec: TaskSpec, by: str) -> Task:
        """Take a task on (clause 8.2). Raises InvalidError where a member is not enrolled."""
        members = await self._contacts.members(spec.members)
        task = await self._tasks.submit(spec, members, by)
        log.info("task submitted", task=task.id, name=task.name, members=members, by=by)
        self._start(task)
        return task

    async def resume(self, task_id: str, by: str) -> Task:
        """Go on with a task that failed, after its last finished round (clause 9.4.3l). Raises NotFoundError, ConflictError."""
        task = await self._tasks.move(task_id, "submitted", f"resumed by {by}")
        if job := self._jobs.get(task_id):
            await asyncio.wait([job])  # it has just failed, and is still telling its members
        self._start(task)
        return task

    async def cancel(self, task_id: str, by: str) -> Task:
        """End a task, here and at its members; one that is away is told when it returns. Raises NotFoundError, ConflictError."""
        task = await self._tasks.get(task_id)
        if task.state not in ENDED:  # told first: a crash in between must leave nobody at work on it
            await self._tell(task.members, "task.cancel", task.id)
        task = await self._tasks.move(task_id, "cancelled", f"cancelled by {by}")
        log.info("task cancelled", task=task.id, by=by)
        if job := self._jobs.get(task_id):
            job.cancel()
            await asyncio.wait([job])
        await self._forget(task)
        return task

    async def promote(self, name: str, version: int, by: str) -> Model:
        """Put a version in use, at its members too (clause 8.10.2). Raises NotFoundError."""
        model = await self._registry.promote(name, version, by)
        await self._deploy(model)
        return model

    async def roll_back(self, name: str, by: str) -> Model:
        """Put the version before back in use, at its members too. Raises ConflictError where there is none."""
        model = await self._registry.roll_back(name, by)
        await self._deploy(model)
        return model

    def _start(self, task: Task) -> None:
        job = self._group.create_task(self._carry(task), name=f"task {task.id}")
        self._jobs[task.id] = job
        job.add_done_callback(lambda _: self._jobs.pop(task.id))

    async def _carry(self, task: Task) -> None:
        """One task from where it stands to its end."""
        bind(task.id)
        try:
            # what gateways do by themselves costs nothing here, however long one of them is away
            async with self.slots if task.spec.layer == "cloud" else nullcontext():
                if task.state == "submitted":
                    # told before it counts as running: a crash in between tells them twice, which they bear
                    await self._tell(task.members, "task.start", task.id, spec=task.spec.model_dump(mode="json"))
                    task = await self._tasks.move(task.id, "running")
                how = await (self._cloud(task) if task.spec.layer == "cloud" else self._below(task))
                await self._tasks.move(task.id, "finished", how)
                await self._forget(task)
        except ConflictError:
            log.info("task ended meanwhile", task=task.id)
        except FedfabError as error:
            await self._fail(task, str(error))
        except Exception as error:
            log.exception("task failed", task=task.id)
            await self._fail(task, f"{type(error).__name__}: {error}")

    async def _cloud(self, task: Task) -> str:
        """Both layers: aggregate the gateways here; the model goes to the registry, and the better one of two to the members."""
        context = self._node.context(task.id)
        outcome = await aggregate(
            task.spec,
            [RemoteLearner(context, member) for member in task.members],
            name=self._node.name,
            layer="cloud",
            checkpoint=Checkpoint(self._checkpoints / task.id),
            observe=lambda report: self._report(task, self._node.name, report),
        )
        for member, result in outcome.finished.items():
            await self._tasks.record(task.id, "result", {"member": member, **result})
        model = await self._registry.add(
            task,
            outcome.params,
            metrics=dict(outcome.metrics),
            participants={end: dict(metrics) for end, metrics in outcome.per_end.items()},
            objections=_objections(outcome.finished),
        )
        log.info("model added", model=model.name, version=model.version, state=model.state, reason=model.reason)
        in_use = await self._registry.in_use(task.name)
        if in_use is not None:
            await self._deploy(in_use)  # also where members judged otherwise: all serve the version that is in use here
        await self._tell(task.members, "task.over", task.id)  # also to those who were away and still wait for a round
        return f"{_ended(outcome.rounds, outcome.converged)}; version {model.version}: {model.reason}"

    async def _below(self, task: Task) -> str:
        """Ends or clusters by themselves: the gateways aggregate; wait until each has told what came of it, however long it is away."""
        results: dict[str, Mapping[str, Any]] = {}
        after = 0
        while len(results) < len(task.members):
            for event in await self._tasks.events(task.id, after=after, wait_s=_WAIT_S):
                after = event.number
                if event.kind == "result":
                    results[str(event.body["member"])] = event.body
                elif event.body.get("state") == "submitted":
                    results.clear()  # what was told before the task was resumed
        failed = {member: result["error"] for member, result in results.items() if "error" in result}
        if len(failed) > len(results) * (1 - task.spec.rounds.quorum):
            raise CoordinatorError(
                "FF-COORD-022",
                "; ".join(f"{member}: {_reason(error)}" for member, error in failed.items()),
                hint="mend what the members say, then: fedfab task resume",
            )
        return f"{len(results) - len(failed)} of {len(results)} members have learned"

    async def _hear(self) -> None:
        async for message in self._node.unclaimed():
            await self._take_down(message)
            await message.done()

    async def _take_down(self, message: Message) -> None:
        """What a member tells of a task; what does not belong to a task that runs with it is dropped."""
        header = message.header
        try:
            task = await self._tasks.get(header.task)
            if header.sender not in task.members or task.state in ENDED:
                raise CoordinatorError(
                    "FF-COORD-023", f"{header.sender} has no part in task {task.id}, which is {task.state}"
                )
            if header.kind == "task.report":
                await self._report(task, header.sender, _REPORT.validate_python(message.meta))
            elif header.kind == "task.result":
                await self._tasks.record(task.id, "result", {**message.meta, "member": header.sender})
            else:
                raise CoordinatorError("FF-COORD-024", f'messages of kind "{header.kind}" are not known here')
        except (FedfabError, ValidationError) as error:
            log.warning("message dropped", kind=header.kind, sender=header.sender, task=header.task, error=str(error))

    async def _report(self, task: Task, member: str, report: RoundReport) -> None:
        self.history.note(task.id, member if member == report.name else f"{member}/{report.name}", report)
        await self._tasks.record(task.id, "round", {"member": member, **report.to_json()})

    async def _deploy(self, model: Model) -> None:
        await self._tell(model.members, "model.promote", model.task, model=model.name, version=model.version)

    async def _tell(self, members: Sequence[str], kind: str, task: str, **meta: object) -> None:
        """Into the mailboxes: who is away hears it when it returns (clause 8.3)."""
        for member in members:
            await self._node.send(member, kind, {"task": task, **meta}, task=task)

    async def _fail(self, task: Task, reason: str) -> None:
        await self._tell(task.members, "task.cancel", task.id, resumable=True)
        try:
            await self._tasks.move(task.id, "failed", reason)
        except ConflictError:
            return
        log.error("task failed", task=task.id, reason=reason)

    async def _forget(self, task: Task) -> None:
        await self._node.context(task.id).close()
        await Checkpoint(self._checkpoints / task.id).clear()


_REPORT = TypeAdapter(RoundReport)


def _objections(finished: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What members hold against the model, each having judged it beside the one in use there, on its present data."""
    return [
        f"{member}: {verdict.get('verdict', name)}"
        for member, result in finished.items()
        for name, verdict in result.get("models", {}).items()
        if not verdict.get("promoted", True)
    ]


def _ended(rounds: int, converged: bool) -> str:
    return f"converged after {rounds} rounds" if converged else f"{rounds} rounds"


def _reason(error: object) -> str:
    return str(error.get("message", error)) if isinstance(error, Mapping) else str(error)
