"""The aggregator's role in a task, from the first handshake to the final model: one coroutine, re-entered after a crash.

describe → moments → initial model → rounds until convergence or the set number (8.9) → final evaluation → finish.
It drives anything that is a `Learner`, so it is the same at the edge, over ends, and in the cloud, over gateways (5.1).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from federation.admission import admit
from federation.checkpoint import Checkpoint
from federation.errors import FederationError
from federation.latecomers import Latecomers, Newcomer
from federation.members import Members
from federation.rounds import RoundReport, ends_below, figures, run_round, spent
from models import scaling
from models.learner import Description, Learner, Params
from models.parameters import initial, seeded
from models.schema import Schema
from models.spec import Layer, RoundsSpec, TaskSpec

log = structlog.get_logger()

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
    start: tuple[int, Params] | None = None,
    enough: asyncio.Event | None = None,
) -> Outcome:
    """Train ``spec`` with ``learners``; the model of the last round is the result, whether converged or not.

    With a checkpoint, a call with the same arguments goes on after the last finished round, and ends with the parameters of an
    undisturbed run, bit for bit. ``observe`` gets every round's report once the round is durable, and the final model's; after a
    crash the last one may come again. ``start`` is a round finished elsewhere and its parameters, to go on from; ``enough``, once
    set, ends the training after the round at work. Raises QuorumError, FederationError.
    """
    run = _Run(spec, Members(learners, spec.rounds), name=name, layer=layer, checkpoint=checkpoint, observe=observe)
    try:
        await run.prepare(start)
        while not (run.over or (enough is not None and enough.is_set())):
            await run.round()
        return await run.conclude()
    finally:
        await run.leave()


@dataclass(slots=True)
class _State:
    """All that a checkpoint holds beside the parameters."""

    schemas: dict[str, Any]
    """By digest."""
    joined: dict[str, dict[str, str]]
    """Members that take part: digest of each cluster's schema, by name of the cluster."""
    refused: dict[str, str]
    round: int = 0
    asked: dict[str, int] = field(default_factory=dict)
    """In how many rounds each member was to take part."""
    best_loss: float | None = None
    stale: int = 0
    converged: bool = False
    reports: list[dict[str, Any]] = field(default_factory=list)
    finished: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """A copy as deep as needed: what grows in place while it is being written."""
        copied = {"reports": list(self.reports), "asked": dict(self.asked), "joined": dict(self.joined)}
        return {name: getattr(self, name) for name in self.__slots__} | copied

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
        self._latecomers = Latecomers()
        self._state = _State({}, {}, {})
        self._params: Params = {}

    @property
    def over(self) -> bool:
        """Whether there is no round to come."""
        return self._state.converged or self._state.round >= self._spec.rounds.max

    async def prepare(self, start: tuple[int, Params] | None) -> None:
        """Take up the checkpoint, or learn who is there and make the first model."""
        if not await self._resume():
            await self._begin(start)

    async def round(self) -> None:
        """One round; the checkpoint is written while the next one goes out."""
        number = self._state.round + 1
        self._welcome()
        chosen = self._choose(number)
        done = await run_round(self._members, number, self._params, chosen)
        self._params = self._params | done.learned
        report = done.report(self._spec, self._layer, self._name, number)
        self._state.round, self._state.finished = number, None
        self._state.asked |= {name: self._state.asked.get(name, 0) + 1 for name in done.asked}
        self._state.judge(report.metrics.get("loss"), self._spec.rounds)
        await self._save(report)

    async def conclude(self) -> Outcome:
        """Validate the final model, and let every member take it over."""
        if self._state.finished is None:
            await self._saved()
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
                epsilon=spent(
                    self._spec, self._state.round * (self._spec.rounds.cluster if self._layer == "cloud" else 1)
                ),
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

    async def leave(self) -> None:
        """Let go of members that never came, and wait until the checkpoint being written is on disk."""
        await self._latecomers.leave()
        await self._saved()

    async def _begin(self, start: tuple[int, Params] | None) -> None:
        found, away = await self._members.ask("description", lambda learner: learner.describe())
        _, refused = admit(found, one_schema=self._layer != "cloud")
        self._state = _State({}, {}, refused)
        for member, reason in refused.items():
            self._members.refuse(member, reason)
        sums, silent = await self._members.ask(
            "standardisation", lambda learner: learner.moments(), found.keys() - refused.keys()
        )
        for member in sums:
            self._join(member, found[member])
        self._members.out |= {member: reason for member, reason in (away | silent).items() if member not in sums}
        self._params = initial(self._spec, self._schemas())
        self._params |= scaling.scaling(self._spec, scaling.add(sums.values()))
        if start is not None:
            self._state.round, self._params = start[0], self._params | start[1]
        await self._save()

    async def _resume(self) -> bool:
        stored = await self._checkpoint.load() if self._checkpoint is not None else None
        if stored is None:
            return False
        state, self._params = stored
        if TaskSpec.model_validate(state.pop("spec")) != self._spec:
            raise FederationError(
                "FF-FED-041",
                f'the checkpoint of task "{self._spec.name}" was made for another specification',
                hint="start it as a new task, or remove the checkpoint",
            )
        names = [learner.name for learner in self._members.learners]
        self._state = _State(**{"joined": {name: {} for name in names}} | state)
        self._members.out |= self._state.refused
        self._members.out |= {
            name: "it has not joined yet" for name in names if name not in self._state.joined | self._members.out
        }
        if self._state.reports and self._state.finished is None:  # the crash may have come before it was told
            await self._tell(RoundReport.from_json(self._state.reports[-1]))
        return True

    def _schemas(self) -> list[Schema]:
        return [Schema.model_validate(schema) for schema in self._state.schemas.values()]

    def _join(self, member: str, found: Description) -> None:
        self._state.joined[member] = {cluster: schema.digest() for cluster, schema in found.schemas.items()}
        self._state.schemas |= {schema.digest(): schema.model_dump() for schema in found.schemas.values()}
        self._members.out.pop(member, None)

    def _welcome(self) -> None:
        """Take in who has come since the last round, and ask again who has not."""
        for arrival in self._latecomers.arrived():
            if isinstance(arrival, Newcomer):
                self._take_in(arrival)
            else:
                member, reason = arrival
                self._members.out[member] = reason
        away = self._members.out.keys() - self._state.refused.keys()
        self._latecomers.knock([learner for learner in self._members.learners if learner.name in away])

    def _take_in(self, newcomer: Newcomer) -> None:
        """Give a late member's schema its place in the model, with the values it would have had from the start.

        What the others standardise by stays as it is: they have learned with it.
        """
        member, found, sums = newcomer
        schemas = {schema.digest(): schema for schema in self._schemas()}
        known = {
            name: Description({cluster: schemas[digest] for cluster, digest in clusters.items()}, 0)
            for name, clusters in self._state.joined.items()
        }
        _, refused = admit(known | {member: found}, one_schema=self._layer != "cloud")
        if member in refused:
            self._state.refused[member] = refused[member]
            self._members.refuse(member, refused[member])
            return
        made = initial(self._spec, found.schemas.values()) | scaling.scaling(self._spec, sums)
        self._params = made | self._params
        self._join(member, found)
        log.info("member joined late", task=self._spec.name, member=member, round=self._state.round + 1)

    def _choose(self, number: int) -> list[str] | None:
        """Who takes part in round ``number``: those asked least so far, ties drawn from the task's seed. None: everyone."""
        if self._spec.rounds.fraction == 1:
            return None
        names = [learner.name for learner in self._members.learners]
        wanted = math.ceil(self._spec.rounds.fraction * len(names) - 1e-9)
        draw = seeded(self._spec.seed, "participants", number).permutation(len(names))
        there = sorted(
            (self._state.asked.get(name, 0), int(lot), name)
            for name, lot in zip(names, draw, strict=True)
            if name not in self._members.out
        )
        return [name for _, _, name in there[:wanted]]

    async def _save(self, report: RoundReport | None = None) -> None:
        """Start writing what is true now, then tell of it. One at a time, so that a later round never stands behind an earlier one."""
        await self._saved()
        if report is not None:
            self._state.reports.append(report.to_json())
        self._saving = asyncio.create_task(self._write(self._state.to_json(), self._params, report))

    async def _write(self, state: dict[str, Any], params: Params, report: RoundReport | None) -> None:
        if self._checkpoint is not None:
            await self._checkpoint.save(state | {"spec": self._spec.model_dump(mode="json")}, params)
        if report is not None:
            await self._tell(report)

    async def _saved(self) -> None:
        if self._saving is not None:
            saving, self._saving = self._saving, None
            await saving

    async def _tell(self, report: RoundReport) -> None:
        if self._observe is not None:
            await self._observe(report)
