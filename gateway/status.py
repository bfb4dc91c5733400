"""What the gateway is doing right now, as one JSON document: for `fedfab gateway status`, and whoever watches the plant."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from common.clock import Clock
from common.reload import Reload
from gateway.config import Config
from gateway.modelstore import ModelStore
from gateway.programs import Programs
from gateway.runtime import Runtime
from gateway.seeing.overview import Seeing
from gateway.store import Store
from gateway.store.metrics import summary


@dataclass(frozen=True, slots=True)
class Status:
    """Asks every part of the daemon how it is. Call it: the answer is JSON-serialisable and holds no value of a machine."""

    reload: Reload[Config]
    store: Store
    runtime: Runtime
    models: ModelStore
    programs: Programs
    seeing: Seeing
    clock: Clock
    last_hang: Mapping[str, str] | None = None
    """What the watchdog said of an earlier process of this gateway."""
    started: float = field(default_factory=time.time)

    async def __call__(self) -> dict[str, object]:
        """Sources, ends, tasks, models, alerts, buffers, predictions, processes, the box."""
        ends, models, kept, seen = await asyncio.to_thread(
            lambda: (self._ends(), self._models(), summary(self.store), self.seeing.status())
        )
        coordinator = self.reload.config.coordinator
        return {
            "gateway": self.reload.config.gateway.name,
            "version": version("fedfab"),
            "pid": os.getpid(),
            "started": self.started,
            "now": time.time(),
            "configuration": self.reload.status(),
            "clock": self.clock.status(),
            "last_hang": self.last_hang,
            "coordinator": {"url": coordinator.url, "connected": self.programs.connected} if coordinator else None,
            **self._sources(),
            "ends": ends,
            "store": kept,
            "tasks": self.programs.status(),
            "models": models,
            **seen,
        }

    def _sources(self) -> dict[str, Any]:
        found, looking = self.runtime.status(), self.seeing.sources
        if looking is not None:
            for source in found["sources"]:
                source["tags"] = looking.tags(source["name"])
        return found

    def _ends(self) -> list[dict[str, object]]:
        stored = self.store.rows()
        found = []
        for end in self.reload.config.ends:
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
