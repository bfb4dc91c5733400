"""Layer one: ends of one schema under one name, to their aggregator a single learner (clauses 5.3, 5.4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from federation.admission import admit
from federation.aggregate import Observe
from federation.members import Members
from federation.rounds import ends_below, run_round
from models import scaling
from models.learner import Description, Learner, Moments, Params, Tally, Update
from models.spec import TaskSpec


class Cluster:
    """A `Learner` made of learners: ends, or clusters again. One round of its aggregator is ``rounds.cluster`` rounds inside.

    A learner whose schema differs from the others' of the same cluster name is refused, the field named, and missing from then
    on. ``observe`` gets the report of every inner round; ``finish`` replaces calling each learner's.
    """

    def __init__(
        self,
        spec: TaskSpec,
        name: str,
        learners: Sequence[Learner],
        *,
        observe: Observe | None = None,
        finish: Callable[[Params], Awaitable[Mapping[str, Any]]] | None = None,
    ) -> None:
        self.name = name
        self._spec, self._observe, self._finish = spec, observe, finish
        self._members = Members(learners, spec.rounds)
        self._description: Description | None = None

    async def describe(self) -> Description:
        """Schemas of all admitted, samples added up. Raises QuorumError where too many are missing or refused."""
        found, _ = await self._members.ask(f"{self.name}: description", lambda learner: learner.describe())
        _, refused = admit(found, one_schema=True)
        for name, reason in refused.items():
            self._members.refuse(name, reason)
        admitted = [description for name, description in found.items() if name not in refused]
        self._description = Description(
            {cluster: schema for one in admitted for cluster, schema in one.schemas.items()},
            sum(one.samples for one in admitted),
            {end: samples for one in admitted for end, samples in one.ends.items()},
        )
        return self._description

    async def moments(self) -> Moments:
        """Sums over all ends."""
        await self._admitted()
        sums, _ = await self._members.ask(f"{self.name}: standardisation", lambda learner: learner.moments())
        return scaling.add(sums.values())

    async def fit(self, round_: int, params: Params) -> Update:
        """Train inside the cluster; the validation of ``params`` as they came is that of the first inner round."""
        await self._admitted()
        inner = self._spec.rounds.cluster
        learned: Params = {}
        before: Mapping[str, Tally] = {}
        losses: list[float] = []
        seconds = 0.0
        for number in range((round_ - 1) * inner + 1, round_ * inner + 1):
            done = await run_round(self._members, number, params | learned)
            learned = learned | done.learned
            before = before or done.before
            losses.append(done.train_loss)
            seconds += done.seconds
            if self._observe is not None:
                await self._observe(done.report(self._spec, "cluster", self.name, number))
        report = {"rounds": losses, "missing": done.missing, "seconds": seconds, "timing": done.timing}
        return Update(learned, done.samples, losses[-1], before, report)

    async def evaluate(self, params: Params) -> Mapping[str, Tally]:
        """Validation on each end."""
        await self._admitted()
        tallies, _ = await self._members.ask(f"{self.name}: evaluation", lambda learner: learner.evaluate(params))
        return ends_below(tallies)

    async def finish(self, params: Params) -> Mapping[str, Any]:
        """The callback's answer, or every learner's by name."""
        if self._finish is not None:
            return await self._finish(params)
        answers, failed = await self._members.ask(f"{self.name}: finish", lambda learner: learner.finish(params))
        return answers | {name: {"error": reason} for name, reason in failed.items()}

    async def _admitted(self) -> None:
        if self._description is None:
            await self.describe()
