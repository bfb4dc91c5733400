"""The clusters of this gateway as learners: for one task, from its specification to models in the store.

The gateway is the first aggregation centre (clause 5.4): it trains its clusters, or each end by itself, with nobody else; or it is
one member of the cloud's task, its clusters behind it. Either way a model is exported once for all ends that share it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from common.errors import FedfabError
from federation.aggregate import Observe, Outcome, aggregate
from federation.checkpoint import Checkpoint
from federation.cluster import Cluster
from gateway.config import Config
from gateway.ends import EndLearner, Snapshot
from gateway.errors import GatewayError, as_json
from gateway.modelstore import Evidence, ModelStore
from gateway.publish import publish
from gateway.workers import WorkerPool
from models.learner import Learner, Params
from models.spec import TaskSpec

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Group:
    """Ends that get one model: a cluster, or a single end."""

    name: str
    ends: tuple[EndLearner, ...]

    def model(self, spec: TaskSpec) -> str:
        """Name of the model these ends are served."""
        return f"{spec.name}-{self.name}"


class Clusters:
    """What this gateway can learn with; one for each task. ``folder`` keeps what the task must find again after a restart."""

    def __init__(
        self, config: Config, spec: TaskSpec, task: str, *, folder: Path, models: ModelStore, pool: WorkerPool
    ) -> None:
        self.config = config
        self.spec = spec
        self.task = task
        self.folder = folder
        self.models = models
        self.pool = pool
        self._snapshot = Snapshot(folder / "snapshot.json")

    async def groups(self) -> list[Group]:
        """The groups the task asks for, each with the ends that have something to learn from.

        Raises GatewayError FF-PROGRAM-001 for a cluster this gateway does not have, -002 where no end has a training sample.
        """
        await self.pool.start()
        found = [Group(name, await self._able(name)) for name in self._asked()]
        if self.spec.layer == "end":
            return [Group(end.name, (end,)) for group in found for end in group.ends]
        return found

    async def learn(self, observe: Observe) -> dict[str, dict[str, Any]]:
        """Train every group by itself, without the cloud; answers with what became of each model, by its name.

        One group's failure does not end the others: it is told under ``error``.
        """
        groups = await self.groups()
        results = await asyncio.gather(*(self._learn(group, observe) for group in groups))
        return dict(zip((group.model(self.spec) for group in groups), results, strict=True))

    async def member(self, name: str, observe: Observe) -> Learner:
        """This gateway as one learner of the cloud's task: its cluster, or a cluster of its clusters."""
        groups = await self.groups()

        async def finish(params: Params) -> Mapping[str, Any]:
            made = [await self.publish(group, params) for group in groups]
            return {"models": {evidence.model: told(evidence) for evidence in made}}

        if len(groups) == 1:
            return Cluster(self.spec, groups[0].name, groups[0].ends, observe=observe, finish=finish)
        inner = [Cluster(self.spec, group.name, group.ends, observe=observe) for group in groups]
        rounds = self.spec.rounds.model_copy(update={"cluster": 1})  # the clusters inside do the inner rounds
        return Cluster(self.spec.model_copy(update={"rounds": rounds}), name, inner, finish=finish)

    async def publish(self, group: Group, params: Params, *, interim: bool = False) -> Evidence:
        """Parameters as the group's model, judged beside the one in use; ``interim``: made without the coordinator."""
        name = group.model(self.spec)
        return await publish(params, name=name, ends=group.ends, models=self.models, pool=self.pool, interim=interim)

    async def _learn(self, group: Group, observe: Observe) -> dict[str, Any]:
        try:
            outcome = await aggregate(
                self.spec,
                group.ends,
                name=group.name,
                layer=self.spec.layer,
                checkpoint=Checkpoint(self.folder / group.name),
                observe=observe,
            )
            return told(await self.publish(group, outcome.params), outcome)
        except FedfabError as error:
            log.error("group not learned", task=self.task, group=group.name, error=str(error))
            return {"error": as_json(error)}

    def _asked(self) -> tuple[str, ...]:
        known = tuple(cluster.name for cluster in self.config.clusters if self.config.ends_of(cluster.name))
        unknown = [name for name in self.spec.clusters if name not in known]
        if unknown or not known:
            raise GatewayError(
                "FF-PROGRAM-001",
                f'task "{self.spec.name}" asks for clusters {unknown or "of this gateway"}; '
                f"gateway {self.config.gateway.name} has {list(known) or 'none with an end'}",
                hint='name its clusters in the task, or leave "clusters" out to take all; [[cluster]] in the configuration adds one',
            )
        return self.spec.clusters or known

    async def _able(self, cluster: str) -> tuple[EndLearner, ...]:
        ends = [
            EndLearner(
                end.name,
                cluster=cluster,
                schema=self.config.schema_of(cluster),
                spec=self.spec,
                task=self.task,
                snapshot=self._snapshot,
                pool=self.pool,
            )
            for end in self.config.ends_of(cluster)
        ]
        samples = await asyncio.gather(*(_samples(end) for end in ends))
        for end, count in zip(ends, samples, strict=True):
            if count == 0:
                log.warning("end left out: it has no training sample", task=self.task, end=end.name)
        able = tuple(end for end, count in zip(ends, samples, strict=True) if count)
        if not able:
            raise GatewayError(
                "FF-PROGRAM-002",
                f'task "{self.spec.name}": no end of cluster "{cluster}" has a training sample yet ({", ".join(e.name for e in ends)})',
                hint="a sample is a window of labelled rows outside the hold-out; /status shows the rows of each end",
            )
        return able


def told(evidence: Evidence, outcome: Outcome | None = None) -> dict[str, Any]:
    """What a coordinator, or a person, is told of a model that was made."""
    result: dict[str, Any] = {
        "version": evidence.version,
        "promoted": evidence.promoted,
        "verdict": evidence.verdict,
        "per_end": evidence.metrics,
    }
    if outcome is not None:
        result |= {"rounds": outcome.rounds, "converged": outcome.converged, "metrics": outcome.metrics}
    return result


async def _samples(end: EndLearner) -> int:
    return (await end.describe()).samples
