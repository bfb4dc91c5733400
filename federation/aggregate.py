"""The aggregator's role in a task, from the first handshake to the final model: one coroutine, re-entered after a crash.

describe → moments → initial model → rounds until convergence or the set number (8.9) → final evaluation → finish.
It drives anything that is a `Learner`, so it is the same at the edge, over ends, and in the cloud, over gateways (5.1).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from federation.admission import admit
from federation.checkpoint import Checkpoint
from federation.errors import FederationError
from federation.members import Members
from federation.rounds import RoundReport, ends_below, figures, run_round
from models import scaling
from models.learner import Learner, Params
from models.parameters import initial
from models.schema import Schema
from models.spec import Layer, RoundsSpec, TaskSpec

Observe = Callable[[RoundReport], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a task came to: the parameters of the last round, and how good they are."""

    params: Params
    schemas: dict[str, Schema]
    """By digest: the encoders in ``params``."""
    rounds: int
    converged: bool
    metrics: dict[str, float]
    per_end: dict[str, dict[str, float]]
    reports: list[RoundReport]
    finished: dict[str, Mapping[str, Any]]
    """What each member did with the final model."""


async def aggregate(
    spec: TaskSpec,
    learners: Sequence[Learner],
    *,
    name: str,
    layer: Layer,
    checkpoint: Checkpoint | None = None,
    observe: Observe | None = None,
) -> Outcome:
    """Train ``spec`` with ``learners``; the model of the last round is the result, whether converged or not.

    With a checkpoint, a call with the same arguments goes on after the last finished round, and ends with the parameters of an
    undisturbed run, bit for bit. ``observe`` gets every round's report, and the final model's; a round that a crash undid is
    reported again. Raises QuorumError, FederationError.
    """
    run = _Run(spec, Members(learners, spec.rounds), name=name, layer=layer, checkpoint=checkpoint, observe=observe)
    try:
        await run.prepare()
        while not run.over:
            await run.round()
        return await run.conclude()
    finally:
        await run.saved()


@dataclass(slots=True)
class _State:
    """All that a checkpoint holds beside the parameters."""

    schemas: dict[str, Any]
    refused: dict[str, str]
    round: int = 0
    best_loss: float | None = None
    stale: int = 0
    converged: bool = False
    reports: list[dict[str, Any]] = field(default_factory=list)
    finished: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """A copy as deep as needed: reports are never changed, the list of them grows while this one is being written."""
        return {name: getattr(self, name) for name in self.__slots__} | {"reports": list(self.reports)}

    def judge(self, loss: float | None, rounds: RoundsSpec) -> None:
        """Count rounds without a relative gain of more than the tolerance; no tolerance, no early stop."""
        if loss is None or rounds.tolerance == 0:
            return
        if self.best_loss is None or loss < self.best_loss * (1 - rounds.tolerance):
            self.best_loss, self.stale = loss, 0
        else:
            self.stale += 1
            self.converged = self.stale >= rounds.patience


class _Run:
    def __init__(
        self,
        spec: TaskSpec,
        members: Members,
        *,
        name: str,
        layer: Layer,
        checkpoint: Checkpoint | None,
        observe: Observe | None,
    ) -> None:
        self._spec, self._members, self._name, self._layer = spec, members, name, layer
        self._checkpoint, self._observe = checkpoint, observe
        self._saving: asyncio.Task[None] | None = None
        self._state = _State({}, {})
        self._params: Params = {}

    @property
    def over(self) -> bool:
        """Whether there is no round to come."""
        return self._state.converged or self._state.round >= self._spec.rounds.max

    async def prepare(self) -> None:
        """Take up the checkpoint, or learn who is there and make the first model."""
        if not await self._resume():
            await self._begin()

    async def round(self) -> None:
        """One round; the checkpoint is written while the next one goes out."""
        number = self._state.round + 1
        done = await run_round(self._members, number, self._params)
        self._params = self._params | done.learned
        report = done.report(self._spec, self._layer, self._name, number)
        self._state.round = number
        self._state.judge(report.metrics.get("loss"), self._spec.rounds)
        self._state.reports.append(report.to_json())
        await self._save()
        await self._tell(report)

    async def conclude(self) -> Outcome:
        """Validate the final model, and let every member take it over."""
        if self._state.finished is None:
            start = time.perf_counter()
            tallies, missing = await self._members.ask("evaluation", lambda learner: learner.evaluate(self._params))
            samples = self._state.reports[-1]["samples"] if self._state.reports else 0
            report = RoundReport(
                self._spec.name,
                self._layer,
                self._name,
                self._state.round,
                True,
                *figures(self._spec, ends_below(tallies)),
                None,
                samples,
                sorted(missing),
                missing,
                time.perf_counter() - start,
            )
            await self._tell(report)
            answers, failed = await self._members.ask("finish", lambda learner: learner.finish(self._params))
            self._state.reports.append(report.to_json())
            self._state.finished = answers | {member: {"error": reason} for member, reason in failed.items()}
            await self._save()
        reports = [RoundReport.from_json(report) for report in self._state.reports]
        return Outcome(
            self._params,
            {digest: Schema.model_validate(schema) for digest, schema in self._state.schemas.items()},
            self._state.round,
            self._state.converged,
            reports[-1].metrics,
            reports[-1].per_end,
            reports,
            self._state.finished,
        )

    async def saved(self) -> None:
        """Wait until the checkpoint being written is on disk."""
        if self._saving is not None:
            saving, self._saving = self._saving, None
            await saving

    async def _begin(self) -> None:
        found, _ = await self._members.ask("description", lambda learner: learner.describe())
        schemas, refused = admit(found, one_schema=self._layer != "cloud")
        for member, reason in refused.items():
            self._members.refuse(member, reason)
        sums, _ = await self._members.ask("standardisation", lambda learner: learner.moments())
        self._params = initial(self._spec, schemas.values())
        self._params |= scaling.scaling(self._spec, scaling.add(sums.values()))
        self._state = _State({digest: schema.model_dump() for digest, schema in schemas.items()}, self._members.refused)
        await self._save()

    async def _resume(self) -> bool:
        stored = await self._checkpoint.load() if self._checkpoint is not None else None
        if stored is None:
            return False
        state, self._params = stored
        if state.pop("spec") != self._spec.model_dump(mode="json"):
            raise FederationError(
                "FF-FED-041",
                f'the checkpoint of task "{self._spec.name}" was made for another specification',
                hint="start it as a new task, or remove the checkpoint",
            )
        self._state = _State(**state)
        self._members.refused |= self._state.refused
        return True

    async def _save(self) -> None:
        """Start writing what is true now. One at a time, so that a later round never stands behind an earlier one."""
        if self._checkpoint is None:
            return
        await self.saved()
        state = self._state.to_json() | {"spec": self._spec.model_dump(mode="json")}
        self._saving = asyncio.create_task(self._checkpoint.save(state, self._params))

    async def _tell(self, report: RoundReport) -> None:
        if self._observe is not None:
            await self._observe(report)
