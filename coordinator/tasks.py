"""Tasks and their events, durable: `submitted -> running -> finished | failed | cancelled`, and from failed back (clauses 8.2, 8.9).

Every change is one transaction that also writes the event which tells of it, so a watcher misses nothing, whatever crashes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from pydantic import JsonValue
from sqlalchemy import ColumnElement, Connection, func, insert, select, update

from coordinator import tables
from coordinator.db import rows
from coordinator.errors import ConflictError, NotFoundError
from coordinator.resources import ENDED, Event, Task, TaskState, now_ms, plain
from federation.database import Database
from models.spec import TaskSpec

_FROM: dict[TaskState, tuple[TaskState, ...]] = {
    "submitted": ("failed",),
    "running": ("submitted",),
    "finished": ("running",),
    "failed": ("submitted", "running"),
    "cancelled": ("submitted", "running"),
}


class Tasks:
    """The tasks in one database. One process writes; watchers in that process are woken by events, not by a timer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._changed = asyncio.Event()

    async def submit(self, spec: TaskSpec, members: Sequence[str], by: str) -> Task:
        """Store a new task; it waits to be dispatched."""
        row = {
            "id": secrets.token_hex(8),
            "name": spec.name,
            "spec": spec.model_dump(mode="json"),
            "members": list(members),
            "state": "submitted",
            "reason": "",
            "submitted_by": by,
            "submitted": now_ms(),
        }

        def write(connection: Connection) -> None:
            connection.execute(insert(tables.tasks).values(row))
            _append(connection, str(row["id"]), "state", {"state": "submitted", "reason": ""})

        await self._database.write(write)
        self._wake()
        return await self.get(str(row["id"]))

    async def get(self, task: str) -> Task:
        """The task of this id. Raises NotFoundError FF-COORD-020."""
        found = await self._select(tables.tasks.c.id == task, limit=1)
        if not found:
            raise NotFoundError(
                "FF-COORD-020", f'there is no task "{task}"', hint="fedfab task list shows the ids of all tasks"
            )
        return found[0]

    async def find(self, *states: TaskState, limit: int = 100) -> list[Task]:
        """Tasks in any of ``states`` (none given: all), latest first."""
        return await self._select(*([tables.tasks.c.state.in_(states)] if states else []), limit=limit)

    async def counts(self) -> dict[str, int]:
        """How many tasks are in each state."""
        query = select(tables.tasks.c.state, func.count().label("count")).group_by(tables.tasks.c.state)
        return {row["state"]: row["count"] for row in await rows(self._database, query)}

    async def move(self, task: str, state: TaskState, reason: str = "") -> Task:
        """Take the task to ``state``.

        Raises NotFoundError FF-COORD-020, ConflictError FF-COORD-021 when it cannot go there from where it is.
        """
        stamps: dict[TaskState, dict[str, int | None]] = {
            "submitted": {"ended": None},
            "running": {"started": now_ms()},
        }
        times = stamps.get(state, {"ended": now_ms()})

        def write(connection: Connection) -> bool:
            moved = connection.execute(
                update(tables.tasks)
                .where(tables.tasks.c.id == task, tables.tasks.c.state.in_(_FROM[state]))
                .values({"state": state, "reason": reason, **times})
            )
            if moved.rowcount:
                _append(connection, task, "state", {"state": state, "reason": reason})
            return bool(moved.rowcount)

        moved = await self._database.write(write)
        self._wake()
        found = await self.get(task)
        if not moved:
            raise ConflictError(
                "FF-COORD-021",
                f"task {task} is {found.state}, so it cannot become {state}; expected {' or '.join(_FROM[state])}",
                hint="fedfab task show tells how it ended" if found.state in ENDED else "fedfab task watch follows it",
            )
        return found

    async def record(self, task: str, kind: Literal["round", "result"], body: object) -> None:
        """Add an event; ``body`` is anything that becomes a JSON object.

        Who was killed may say the same again: a round is recorded once, a member's result once since the task was last submitted.
        """
        content = cast("dict[str, JsonValue]", plain(body))

        def write(connection: Connection) -> None:
            if not _known(connection, task, kind, content):
                _append(connection, task, kind, content)

        await self._database.write(write)
        self._wake()

    async def recorded(self, task: str, kind: Literal["round", "result"]) -> list[Event]:
        """All events of one kind, in order."""
        return await self._events(tables.events.c.task == task, tables.events.c.kind == kind)

    async def events(self, task: str, *, after: int = 0, limit: int = 500, wait_s: float = 0.0) -> list[Event]:
        """Events behind number ``after``, in order. Waits up to ``wait_s`` for the first, unless the task has ended.

        Raises NotFoundError FF-COORD-020.
        """
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            changed = self._changed
            ended = (await self.get(task)).state in ENDED
            found = await self._events(tables.events.c.task == task, tables.events.c.number > after, limit=limit)
            remaining = deadline - asyncio.get_running_loop().time()
            if found or ended or remaining <= 0:
                return found
            try:
                await asyncio.wait_for(changed.wait(), remaining)
            except TimeoutError:
                return []

    async def _events(self, *where: ColumnElement[bool], limit: int | None = None) -> list[Event]:
        query = select(tables.events).where(*where).order_by(tables.events.c.number).limit(limit)
        return [Event.model_validate(row) for row in await rows(self._database, query)]

    async def _select(self, *where: ColumnElement[bool], limit: int) -> list[Task]:
        latest_first = (tables.tasks.c.submitted.desc(), tables.tasks.c.id)
        query = select(tables.tasks).where(*where).order_by(*latest_first).limit(limit)
        return [Task.model_validate(row) for row in await rows(self._database, query)]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


_SAME = {"round": ("member", "layer", "name", "round", "final", "autonomous"), "result": ("member",)}
"""By which fields an event of a kind is the same as another."""


def _known(connection: Connection, task: str, kind: str, body: Mapping[str, JsonValue]) -> bool:
    events = tables.events.c
    same = [events.task == task, events.kind == kind]
    same += [_holds(events.body[name], body[name]) for name in _SAME[kind] if name in body]
    if kind == "result":  # a task that was resumed has new ones
        submitted = events.task == task, events.kind == "state", events.body["state"].as_string() == "submitted"
        same.append(events.number > select(func.max(events.number)).where(*submitted).scalar_subquery())
    return connection.scalar(select(events.number).where(*same).limit(1)) is not None


def _holds(element: Any, value: JsonValue) -> ColumnElement[bool]:
    if isinstance(value, bool):
        return cast("ColumnElement[bool]", element.as_boolean() == value)
    if isinstance(value, int):
        return cast("ColumnElement[bool]", element.as_integer() == value)
    return cast("ColumnElement[bool]", element.as_string() == value)


def _append(connection: Connection, task: str, kind: str, body: JsonValue) -> None:
    connection.execute(insert(tables.events).values(task=task, at=now_ms(), kind=kind, body=body))
