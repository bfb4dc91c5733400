"""A gateway that trains on while its coordinator is away (clauses 5.4, 8.7): the cluster is an aggregation centre of its own.

It goes on from the last global parameters, or from its own first ones where none ever came. What it makes is an interim model: marked
as such in its evidence, and served only where it is nowhere worse than what was in use. The coordinator's task knows nothing of it:
when the coordinator is back, the gateway answers its rounds from the coordinator's parameters, as FedAvg defines them, so the federated
result is that of an undisturbed run; the interim model serves until a better one comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from common.errors import FedfabError
from common.files import erase
from federation.aggregate import Observe, aggregate
from federation.checkpoint import Checkpoint
from federation.presence import Presence
from federation.rounds import RoundReport
from gateway.clusters import Clusters, Group
from models.learner import Description, Learner, Moments, Params, Tally, Update
from models.spec import TaskSpec

log = structlog.get_logger()


class Remembering:
    """A learner that keeps the last parameters its aggregator sent, and after how many rounds of the cluster they stood."""

    def __init__(self, learner: Learner, spec: TaskSpec, folder: Path) -> None:
        self.name = learner.name
        self._learner = learner
        self._inner = spec.rounds.cluster
        self._kept = Checkpoint(folder)

    async def last(self) -> tuple[int, Params] | None:
        """Rounds of the cluster behind the parameters, and the parameters; None where none ever came."""
        stored = await self._kept.load()
        return (int(stored[0]["round"]), stored[1]) if stored is not None else None

    async def fit(self, round_: int, params: Params) -> Update:
        """Remember, then train."""
        await self._kept.save({"round": (round_ - 1) * self._inner}, params)
        return await self._learner.fit(round_, params)

    async def describe(self) -> Description:
        """As the learner does."""
        return await self._learner.describe()

    async def moments(self) -> Moments:
        """As the learner does."""
        return await self._learner.moments()

    async def evaluate(self, params: Params) -> Mapping[str, Tally]:
        """As the learner does."""
        return await self._learner.evaluate(params)

    async def finish(self, params: Params) -> Mapping[str, Any]:
        """As the learner does."""
        return await self._learner.finish(params)


class Autonomy:
    """Trains on in one task whenever ``coordinator`` was away for the task's ``autonomy_s``. ``folder`` keeps what a restart needs."""

    def __init__(
        self, clusters: Clusters, learner: Remembering, coordinator: Presence, folder: Path, observe: Observe
    ) -> None:
        self.active = False
        self._clusters, self._learner, self._coordinator = clusters, learner, coordinator
        self._folder = folder
        self._observe = observe
        self._after_s = clusters.spec.rounds.autonomy_s

    async def run(self) -> None:
        """Until cancelled. Not a failure of the task: what goes wrong is logged, and tried again at the next absence."""
        while self._after_s and await self._coordinator.missed(self._after_s):
            self.active = True
            log.warning("coordinator away: training on alone", task=self._clusters.task, away_s=self._after_s)
            back = asyncio.Event()
            waiting = asyncio.create_task(self._tell(back))
            try:
                await self._train(back)
            except Exception as error:
                known = isinstance(error, FedfabError)
                log.error("training alone failed", task=self._clusters.task, error=str(error), exc_info=not known)
            finally:
                self.active = False
                waiting.cancel()
            await self._coordinator.wait()

    async def _tell(self, back: asyncio.Event) -> None:
        await self._coordinator.wait()
        log.info("coordinator back: rejoining", task=self._clusters.task)
        back.set()

    async def _train(self, back: asyncio.Event) -> None:
        start = await self._learner.last()
        place = self._folder / f"from-{start[0] if start else 0}"
        for old in self._folder.glob("from-*"):
            if old != place:
                await asyncio.to_thread(erase, old)
        groups = await self._clusters.groups()
        failed = await asyncio.gather(
            *(self._train_group(group, start, place / group.name, back) for group in groups), return_exceptions=True
        )
        for error in failed:  # the others have learned
            if error is not None:
                raise error

    async def _train_group(
        self, group: Group, start: tuple[int, Params] | None, place: Path, back: asyncio.Event
    ) -> None:
        """The rounds that the task has left, or those until the coordinator is back, whichever are fewer."""

        async def observe(report: RoundReport) -> None:
            await self._observe(replace(report, autonomous=True))

        outcome = await aggregate(
            _alone(self._clusters.spec),
            group.ends,
            name=group.name,
            layer="cluster",
            checkpoint=Checkpoint(place),
            observe=observe,
            start=start,
            enough=back,
        )
        if outcome.rounds > (start[0] if start else 0):
            await self._clusters.publish(group, outcome.params, interim=True)


def _alone(spec: TaskSpec) -> TaskSpec:
    """The same learning with nobody above: as many rounds as the cluster would have in the whole task."""
    rounds = spec.rounds
    alone = rounds.model_copy(update={"max": rounds.max * rounds.cluster, "cluster": 1, "fraction": 1.0})
    return spec.model_copy(update={"layer": "cluster", "rounds": alone})
