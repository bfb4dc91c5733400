"""Learning with no coordinator at all (clause 5.4): one task from a file, beside the daemon or without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from common.files import claimed, erase
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
    behind the last finished round. Raises GatewayError FF-PROGRAM-004 for a task of the cloud, -006 while another command trains it.
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

    with _once(folder):
        async with WorkerPool.of(config) as pool:
            clusters = Clusters(config, spec, task, folder=folder, models=ModelStore(data / "models"), pool=pool)
            results = await clusters.learn(seen)
        if not any("error" in result for result in results.values()):
            erase(folder)
    return results


@contextmanager
def _once(folder: Path) -> Iterator[None]:
    """Nobody else trains the task of this folder meanwhile: two would write each other's checkpoints."""
    with ExitStack() as stack:
        try:
            stack.enter_context(claimed(folder.with_name(f"{folder.name}.lock")))
        except BlockingIOError:
            raise GatewayError(
                "FF-PROGRAM-006",
                f'task "{folder.name.removeprefix("local-")}" is being trained at this gateway by another command',
                hint="let that one finish, or end it; if both are wanted, give one of the tasks another name",
            ) from None
        yield
