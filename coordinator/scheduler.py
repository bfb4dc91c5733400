"""The scheduler (clause 7.2): takes tasks, dispatches their programs to the members, drives them to their end, deploys the model.

Everything it must not forget is in the database, the mailbox or a checkpoint, so after a restart each task goes on where it was.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog
from federation.node import Node
from federation.remote import RemoteLearner

from common.errors import FedfabError
from coordinator.contacts import Contacts
from coordinator.errors import ConflictError
from coordinator.registry import Registry
from coordinator.resources import Model, Task
from coordinator.tasks import Tasks
from federation.aggregate import aggregate
from federation.checkpoint import Checkpoint
from federation.rounds import RoundReport
from models.spec import TaskSpec

log = structlog.get_logger()


class Scheduler:
    """Runs tasks, at most ``running`` at a time, while `run` runs."""

    def __init__(
        self,
        node: Node,
        tasks: Tasks,
        registry: Registry,
        contacts: Contacts,
        *,
        checkpoints: Path,
        running: int,
    ) -> None:
        self._node, self._tasks, self._registry, self._participants = node, tasks, registry, participants
        self._checkpoints = checkpoints
        self._slots = asyncio.Semaphore(running)
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._new: asyncio.Queue[Task] = asyncio.Queue()

    async def run(self) -> None:
        """Take up what was unfinished, then every task that is submitted. Cancelled, it leaves tasks as they are, to be taken up again."""
        unfinished = await self._tasks.list("submitted", "running", limit=_ALL)
        async with asyncio.TaskGroup() as group:
            for task in reversed(unfinished):
                self._new.put_nowait(task)
            while True:
                task = await self._new.get()
                self._jobs[task.id] = group.create_task(self._carry(task), name=f"task {task.id}")

    async def submit(self, spec: TaskSpec, by: str) -> Task:
        """Take a task on. Raises InvalidError where a member is not enrolled."""
        members = await self._participants.members(spec.members)
        task = await self._tasks.submit(spec, members, by)
        log.info("task submitted", task=task.id, name=task.name, members=members, by=by)
        self._new.put_nowait(task)
        return task

    async def resume(self, task_id: str, by: str) -> Task:
        """Go on with a task that failed, after its last finished round (clause 9.4.3l). Raises NotFoundError, ConflictError."""
        task = await self._tasks.move(task_id, "submitted", f"resumed by {by}")
        self._new.put_nowait(task)
        return task

    async def cancel(self, task_id: str, by: str) -> Task:
        """End a task, here and at its members; one that is away is told when it returns. Raises NotFoundError, ConflictError."""
        task = await self._tasks.move(task_id, "cancelled", f"cancelled by {by}")
        job = self._jobs.get(task_id)
        if job is not None:
            job.cancel()
            await asyncio.wait([job])
        await self._tell(task.members, task.id, "task.cancel", {"task": task.id})
        return task

    async def promote(self, name: str, version: int, by: str) -> Model:
        """Put a version in use, at its members too. Raises NotFoundError."""
        return await self._deploy(await self._registry.promote(name, version, by))

    async def roll_back(self, name: str, by: str) -> Model:
        """Put the version before back in use, at its members too. Raises ConflictError where there is none."""
        return await self._deploy(await self._registry.roll_back(name, by))

    async def _carry(self, task: Task) -> None:
        """One task from where it stands to its end."""
        try:
            async with self._slots:
                if task.state == "submitted":
                    await self._tell(
                        task.members,
                        task.id,
                        "task.start",
                        {"task": task.id, "spec": task.spec.model_dump(mode="json")},
                    )
                    task = await self._tasks.move(task.id, "running")
                await (self._cloud(task) if task.spec.layer == "cloud" else self._below(task))
        except ConflictError:
            log.info("task ended meanwhile", task=task.id)
        except FedfabError as error:
            await self._fail(task, str(error))
        except Exception as error:
            log.exception("task failed", task=task.id)
            await self._fail(task, f"{type(error).__name__}: {error}")
        finally:
            del self._jobs[task.id]

    async def _cloud(self, task: Task) -> None:
        """Both layers: aggregate the gateways here; the model goes to the registry."""
        context = self._node.context(task.id)
        learners = [RemoteLearner(context, member) for member in task.members]

        async def observe(report: RoundReport) -> None:
            await self._tasks.record(task.id, "round", report.to_json())

        checkpoint = Checkpoint(self._checkpoints / task.id)
        outcome = await aggregate(
            task.spec, learners, name=self._node.name, layer="cloud", checkpoint=checkpoint, observe=observe
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
        await self._tasks.move(task.id, "finished", "converged" if outcome.converged else f"{outcome.rounds} rounds")
        ...
