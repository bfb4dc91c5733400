"""Learning with no coordinator at all (clause 5.4): one task from a file, beside the daemon or without it."""

from __future__ import annotations

from typing import Any

from common.files import erase
from common.tasklog import bind
from federation.aggregate import Observe
from federation.history import History
from federation.rounds import RoundReport
from gateway.clusters import Clusters
from gateway.config import Config
from gateway.errors import GatewayError
from gateway.modelstore import ModelStore
from gateway.workers import WorkerPool
from models.spec import TaskSpec


async def learn(config: Config, spec: TaskSpec, observe: Observe) -> dict[str, dict[str, Any]]:
    """Train every cluster, or every end, of this gateway; answers with what became of each model, by its name.

    The models go into the store of models that the daemon serves from. After an interruption the next call for the same task goes on
    behind the last finished round. Raises GatewayError FF-PROGRAM-004 for a task of the cloud.
    """
    if spec.layer == "cloud":
        raise GatewayError(
            "FF-PROGRAM-004",
            f'task "{spec.name}" is of layer "cloud", which needs a coordinator',
            hint='submit it to the coordinator (fedfab task submit), or train here with layer = "cluster" or "end"',
        )
    data = config.gateway.data_dir
    task = f"local-{spec.name}"
    folder = data / "checkpoints" / task
    history = History()
    bind(task)

    async def seen(report: RoundReport) -> None:
        history.note(task, report.name, report)
        await observe(report)

    async with WorkerPool.of(config) as pool:
        clusters = Clusters(config, spec, task, folder=folder, models=ModelStore(data / "models"), pool=pool)
        results = await clusters.learn(seen)
    if not any("error" in result for result in results.values()):
        erase(folder)
    return results
