"""All of seeing in one object, for the daemon: metrics and alerts over its parts, and the pages that show them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from aiohttp import web
from prometheus_client.core import Metric

from common.machine import Box, Processes, summary
from common.metrics import Buffer, Collector, Registry, buffers
from common.tasklog import LEVELS, TaskLogs
from gateway.config import Config
from gateway.inference import InferenceServer
from gateway.inference.recorder import QUEUE
from gateway.modelstore import ModelStore
from gateway.programs import Programs
from gateway.runtime import Runtime
from gateway.seeing.learning import Models, Tasks, Workers
from gateway.seeing.machines import Ends, Sources
from gateway.seeing.watch import Watch
from gateway.store import Store
from gateway.workers import WorkerPool

READS = frozenset({"metrics", "alerts", "alert", "end", "cluster"})
"""The options this part goes by."""


class Seeing:
    """Looks at the gateway: from the start at the box and at this process, and at its parts once they are there."""

    def __init__(self, config: Config, logs: TaskLogs) -> None:
        self.logs = logs
        self.registry = Registry()
        self.watch = Watch(
            self.registry,
            config.alerts,
            config.rules,
            gateway=config.gateway.name,
            kept=config.gateway.data_dir / "alerts.json",
        )
        self.sources: Sources | None = None
        self._config = config
        self._ends: Ends | None = None
        self._server: InferenceServer | None = None
        self._processes = Processes(lambda: {"daemon": os.getpid()})
        self._buffers: dict[str, Callable[[], Iterable[Buffer]]] = {}
        self.add("box", Box({"data": config.gateway.data_dir}))
        self.add("processes", self._processes)
        self.add("buffers", self)
        self.add("alerts", self.watch)
        self.add_buffers("alerts", self.watch.buffers)

    def look_at(
        self, *, store: Store, runtime: Runtime, models: ModelStore, programs: Programs, pool: WorkerPool
    ) -> None:
        """The parts that keep, read and learn are there now."""
        workers = Workers(pool)
        self._processes = Processes(workers.pids)
        self.sources = Sources(runtime, self._config.metrics.tag_old_after_s)
        self._ends = Ends(self._config, store, runtime)
        self.add("processes", self._processes)
        self.add("sources", self.sources)
        self.add("ends", self._ends)
        self.add("tasks", Tasks(programs))
        self.add("models", Models(models))
        self.add("workers", workers)

    def add(self, name: str, part: Collector) -> None:
        """Show the metrics of one more part."""
        self.registry.add(name, part)

    def add_buffers(self, name: str, ask: Callable[[], Iterable[Buffer]]) -> None:
        """Show, and watch, the bounded buffers of one more part."""
        self._buffers[name] = ask

    def show(self, server: InferenceServer) -> None:
        """Put the pages on the port of predictions, and its own metrics among the others."""
        self._server = server
        self.add("inference", server)
        recorder = server.recorder
        self.add_buffers("results", lambda: [Buffer("results", recorder.waiting, QUEUE, recorder.dropped)])
        server.page("/metrics", "metrics", self._metrics)
        server.page("/tasks/", "status", self._task_log)

    async def run(self) -> None:
        """Watch over the alerts until cancelled."""
        await self.watch.run()

    async def apply(self, config: Config) -> None:
        """Go by another configuration."""
        self._config = config
        if self.sources is not None and self._ends is not None:
            self.sources.tag_old_after_s = config.metrics.tag_old_after_s
            self._ends.config = config
        self.watch.apply(config.alerts, config.rules)

    def collect(self) -> Iterator[Metric]:
        """The buffers of all parts, as they share their families."""
        yield from buffers(self.buffers())

    def buffers(self) -> list[Buffer]:
        """All bounded buffers, and how full they are."""
        return [buffer for ask in list(self._buffers.values()) for buffer in ask()]

    def status(self) -> dict[str, Any]:
        """What `gateway.status` tells of alerts, buffers, predictions, processes and the box. Call it in a thread."""
        return {
            "alerts": self.watch.status(),
            "sinks": [delivery.status() for delivery in self.watch.deliveries],
            "buffers": [asdict(buffer) for buffer in self.buffers()],
            "inference": self._inference(),
            "processes": self._processes.summary(),
            "box": summary(self._config.gateway.data_dir),
        }

    def _inference(self) -> dict[str, Any]:
        """For each model: how many requests it answered, and how many of them within which time, in seconds."""
        models = dict(self._server.metrics.models) if self._server is not None else {}
        return {name: {"requests": each.total.count, "within": each.total.buckets()} for name, each in models.items()}

    async def _metrics(self, request: web.BaseRequest) -> web.StreamResponse:
        page = await asyncio.to_thread(self.registry.scrape, request.headers.get("Accept", ""))
        return web.Response(body=page.body, headers={"Content-Type": page.content_type})

    async def _task_log(self, request: web.BaseRequest) -> web.StreamResponse:
        """``GET /tasks/ID/log``: JSON lines, with ``?level=`` those of at least that level."""
        level = request.query.get("level", "debug")
        match request.path.split("/")[2:]:
            case [task, "log"] if self.logs.has(task) and level in LEVELS:
                return await _download(request, task, self.logs.lines(task, level))
        raise web.HTTPNotFound


async def _download(request: web.BaseRequest, task: str, lines: Iterator[bytes]) -> web.StreamResponse:
    """Piece by piece: a log may be larger than what should be in memory."""
    response = web.StreamResponse(
        headers={
            "Content-Type": "application/jsonl",
            "Content-Disposition": f'attachment; filename="{task}.jsonl"',
        }
    )
    await response.prepare(request)
    while piece := await asyncio.to_thread(_piece, lines):
        await response.write(piece)
    await response.write_eof()
    return response


def _piece(lines: Iterator[bytes], size: int = 1 << 16) -> bytes:
    found = bytearray()
    for line in lines:
        found += line
        if len(found) >= size:
            break
    return bytes(found)
