"""How the coordinator can be seen from outside: metrics of its tasks, members, mailboxes, calls and of the box, and logs of tasks."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import func, select

from common.log import configure
from common.machine import Box, Processes
from common.metrics import Registry
from common.tasklog import TaskLogs
from coordinator.config import Config
from coordinator.contacts import Contacts
from coordinator.db import rows
from coordinator.resources import Participant, Task, TaskState
from coordinator.scheduler import Scheduler
from coordinator.tasks import Tasks
from federation import tables
from federation.hub import Hub
from trust import tls
from trust.errors import TrustError
from trust.identity import TrustStore

_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0)


def task_logs(config: Config) -> TaskLogs:
    """The logs of this coordinator's tasks."""
    log, data = config.log, config.coordinator.data_dir
    return TaskLogs(data / "logs", bytes_each=log.task_mb << 20, tasks=log.tasks, level=log.task_level)


def start_logging(config: Config) -> None:
    """Set up logging for this process, with the log of each task apart."""
    configure(config.log.level, config.log.format, first=task_logs(config), first_level=config.log.task_level)


@dataclass(frozen=True, slots=True)
class _Present:
    """What the database said last."""

    states: Mapping[str, int] = field(default_factory=dict)
    tasks: Sequence[Task] = ()
    """Those that are not over."""
    participants: Sequence[Participant] = ()
    waiting: Sequence[tuple[str, int]] = ()


class Seeing:
    """The metrics of one coordinator. The database is asked before each scrape, everything else is counted as it happens."""

    def __init__(self, config: Config, hub: Hub, tasks: Tasks, contacts: Contacts, scheduler: Scheduler) -> None:
        self._hub, self._tasks, self._contacts, self._history = hub, tasks, contacts, scheduler.history
        self._calls: Counter[tuple[str, str, str]] = Counter()
        self._seconds = Histogram(
            "fedfab_coordinator_call_seconds",
            "From a call to its answer; a poll waits for news.",
            ["method", "path"],
            buckets=_SECONDS,
            registry=None,
        )
        self._present = _Present()
        self._registry = Registry()
        self._registry.add("box", Box({"data": config.coordinator.data_dir}))
        self._registry.add("processes", Processes(lambda: {"daemon": os.getpid()}))
        self._registry.add("federation", hub.meter)
        self._registry.add("coordinator", self)

    async def page(self, request: web.Request) -> web.Response:
        """``GET /metrics``."""
        self._present = _Present(
            await self._tasks.counts(),
            await self._tasks.find("submitted", "running", limit=1000),
            await self._contacts.all(),
            await _waiting(self._hub),
        )
        page = await asyncio.to_thread(self._registry.scrape, request.headers.get("Accept", ""))
        return web.Response(body=page.body, headers={"Content-Type": page.content_type})

    def guarded(self, trust: TrustStore) -> Handler:
        """The page for operators alone, over mutual TLS."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                caller = tls.peer(request.transport, trust)
            except TrustError as error:
                raise web.HTTPForbidden(text=str(error)) from error
            if caller.role != "operator":
                raise web.HTTPForbidden(text=f"{caller.name} is no operator but {caller.role}")
            return await self.page(request)

        return handle

    @web.middleware
    async def count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Counts every call by the route it takes, so by few names however many are called."""
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else "other"
        started, status = time.perf_counter(), 500
        try:
            response = await handler(request)
            status = response.status
            return response
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            self._calls[request.method, path, str(status)] += 1
            self._seconds.labels(request.method, path).observe(time.perf_counter() - started)

    def collect(self) -> Iterator[Metric]:
        """Names ``fedfab_coordinator_…``, ``fedfab_tasks``, ``fedfab_task_…``."""
        yield from _tasks(self._present)
        yield from self._history.collect()
        yield from _members(self._present.participants)
        waiting = GaugeMetricFamily(
            "fedfab_coordinator_mailbox_messages", "Messages that wait for a member.", labels=["peer"]
        )
        for name, count in self._present.waiting:
            waiting.add_metric([name], count)
        calls = CounterMetricFamily("fedfab_coordinator_calls", "Calls answered.", labels=["method", "path", "status"])
        for key, count in list(self._calls.items()):
            calls.add_metric(key, count)
        yield from (waiting, calls)
        yield from self._seconds.collect()


def _tasks(present: _Present) -> Iterator[Metric]:
    tasks = GaugeMetricFamily("fedfab_tasks", "Tasks by state.", labels=["state"])
    for state in get_args(TaskState):
        tasks.add_metric([state], present.states.get(state, 0))
    about = GaugeMetricFamily("fedfab_task_info", "1, with what a task is.", labels=["task", "name", "layer"])
    most = GaugeMetricFamily("fedfab_task_max_rounds", "Rounds the task may take.", labels=["task"])
    for task in present.tasks:
        about.add_metric([task.id, task.name, task.spec.layer], 1)
        most.add_metric([task.id], task.spec.rounds.max)
    yield from (tasks, about, most)


def _members(found: Sequence[Participant]) -> Iterator[Metric]:
    silent = GaugeMetricFamily(
        "fedfab_coordinator_member_silent_seconds", "Since a member called last.", labels=["peer"]
    )
    expires = GaugeMetricFamily(
        "fedfab_coordinator_member_certificate_expiry_seconds",
        "When a member's certificate ends, Unix time.",
        labels=["peer"],
    )
    now = time.time()
    for member in found:
        silent.add_metric([member.name], now - member.last_seen.timestamp())
        expires.add_metric([member.name], member.not_after.timestamp())
    yield from (silent, expires)


async def _waiting(hub: Hub) -> list[tuple[str, int]]:
    recipient = tables.messages.c.recipient
    query = select(recipient, func.count().label("count")).group_by(recipient)
    return [(row["recipient"], row["count"]) for row in await rows(hub.database, query)]
