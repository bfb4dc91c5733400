"""What the gateway is doing right now, as one JSON document: for `fedfab gateway status`, and whoever watches the plant."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from importlib.metadata import version

from gateway.config import Config
from gateway.inference import Recorder
from gateway.modelstore import ModelStore
from gateway.programs import Programs
from gateway.runtime import Runtime
from gateway.store import Store
from gateway.workers import WorkerPool


@dataclass(frozen=True, slots=True)
class Status:
    """Asks every part of the daemon how it is. Call it: the answer is JSON-serialisable and holds no value of a machine."""

    config: Config
    store: Store
    runtime: Runtime
    models: ModelStore
    programs: Programs
    recorder: Recorder
    pool: WorkerPool
    started: float = field(default_factory=time.time)

    async def __call__(self) -> dict[str, object]:
        """Sources, ends, tasks, models, workers."""
        ends, models = await asyncio.to_thread(lambda: (self._ends(), self._models()))
        coordinator = self.config.coordinator
        return {
            "gateway": self.config.gateway.name,
            "version": version("fedfab"),
            "pid": os.getpid(),
            "started": self.started,
            "coordinator": {"url": coordinator.url, "connected": self.programs.connected} if coordinator else None,
            **self.runtime.status(),
            "ends": ends,
            "tasks": self.programs.status(),
            "models": models,
            "results": {"written": self.recorder.written, "dropped": self.recorder.dropped},
            "workers": self.pool.pids(),
        }

    def _ends(self) -> list[dict[str, object]]:
        stored = self.store.rows()
        found = []
        for end in self.config.ends:
            rows, newest = stored.get(end.name, (0, None))
            found.append({"name": end.name, "cluster": end.cluster, "rows": rows, "newest": newest})
        return found

    def _models(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        for name in self.models.names():
            versions, in_use = self.models.versions(name), self.models.in_use(name)
            newest = self.models.evidence(name, versions[-1])
            found.append(
                {
                    "name": name,
                    "versions": versions,
                    "in_use": in_use.model_dump(mode="json") if in_use else None,
                    "newest": newest.model_dump(
                        mode="json", include={"version", "task", "task_id", "round", "verdict", "metrics"}
                    ),
                }
            )
        return found
