"""A gateway whose parts all count, without sources that speak: for tests of what is shown of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.tasklog import TaskLogs
from connectors.contract import Batch, Connector, Quality
from connectors.errors import ConnectorError
from federation.metrics import Meter
from gateway.config import Config
from gateway.inference import InferenceServer, Recorder, Shelf
from gateway.modelstore import ModelStore
from gateway.programs import Programs
from gateway.runtime import Runtime
from gateway.seeing.logs import task_logs
from gateway.seeing.overview import Seeing
from gateway.store import Store
from gateway.store.metrics import StoreMetrics
from gateway.store.upkeep import Upkeep
from gateway.workers import WorkerPool
from tests.gateway.plants import config as plant
from tests.gateway.plants import snapshot
from tests.gateway.served import SCHEMA, draft, onnx_model


@dataclass
class Gateway:
    """The parts, and what looks at them."""

    config: Config
    store: Store
    runtime: Runtime
    models: ModelStore
    programs: Programs
    pool: WorkerPool
    server: InferenceServer
    meter: Meter
    logs: TaskLogs
    seeing: Seeing


@asynccontextmanager
async def gateway(folder: Path, **options: Any) -> AsyncIterator[Gateway]:
    """All parts, looked at; nothing runs but what a test starts."""
    made = Config.model_validate(
        {**plant(folder).model_dump(by_alias=True), **options, "source": plant(folder).sources}
    )
    models = ModelStore(folder / "models")
    models.add("wear", draft(), onnx_model(add=0.0))
    models.promote("wear", 1, "a test")
    with Store.open(made.gateway.store) as store:
        async with WorkerPool(made.gateway.store, 1) as pool:
            runtime = Runtime(made, store, create=lambda source: Silent())
            programs = Programs(made, folder=folder / "checkpoints", models=models, pool=pool)
            server = InferenceServer(
                Shelf(models),
                ends={"m1": SCHEMA},
                latest=store.latest,
                recorder=Recorder(store.append_results),
                status=lambda: None,  # type: ignore[arg-type,return-value]
                settings=made.inference,
            )
            seeing, meter = Seeing(made, task_logs(made)), Meter()
            seeing.show(server)
            seeing.look_at(store=store, runtime=runtime, models=models, programs=programs, pool=pool)
            seeing.add("store", StoreMetrics(store, Upkeep(store, made.store, [])))
            seeing.add("federation", meter)
            seeing.add_buffers("federation", meter.buffers)
            yield Gateway(made, store, runtime, models, programs, pool, server, meter, seeing.logs, seeing)


class Silent(Connector):
    """One batch with a bad value, then nothing any more."""

    async def start(self, cursor: str | None) -> None:
        self.told = False

    async def read(self) -> Batch:
        if self.told:
            raise ConnectorError("FF-SOURCE-001", "nothing comes any more")
        self.told = True
        return Batch([*snapshot(1, vibration=1.0), *snapshot(1, Quality.BAD, temperature=None)])

    async def stop(self) -> None:
        return None

    async def probe(self) -> list[Any]:
        return []
