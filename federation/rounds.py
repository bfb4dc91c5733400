"""One round: send the model to all members, add up what they learned in fixed order (FedAvg, McMahan et al. 2017; clause 8.8)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from federation.members import Members
from models.aggregate import Mean
from models.learner import Learner, Params, Tally, Update
from models.metrics import merge, metrics
from models.spec import Layer, TaskSpec
from privacy import dp

Timing = dict[str, float]
"""Where one member's time went, in seconds: ``total`` from the request until the update was there; of it ``compute`` by the member's
own word, ``transfer`` while bytes were seen on their way, ``wait`` the rest: away, or waiting its turn."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An update whose parameters are opened only when their turn to be added has come; ``update.params`` is empty."""

    update: Update
    open: Callable[[], Awaitable[Params]]
    transfer_s: float = 0.0
    """Seconds in which its bytes were on their way."""


@runtime_checkable
class Deferring(Protocol):
    """A learner that can keep its update sealed until it is wanted, so that not all updates are in memory at once."""

    async def answer(self, round_: int, params: Params) -> Answer:
        """`Learner.fit` without the parameters."""
        ...


@dataclass(frozen=True, slots=True)
class RoundReport:
    """What one round showed. ``metrics`` and ``per_end`` are of the model as it entered the round; of the final model where
    ``final``. Ends below another learner are named ``learner/end``."""

    task: str
    layer: Layer
    name: str
    round: int
    final: bool
    metrics: dict[str, float]
    per_end: dict[str, dict[str, float]]
    train_loss: float | None
    samples: int
    missing: list[str]
    reasons: dict[str, str]
    seconds: float
    detail: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Members that were to take part in the round."""
    timing: dict[str, Timing] = field(default_factory=dict)
    """Of those whose update was taken."""
    autonomous: bool = False
    """A gateway trained on by itself, because the coordinator was away; its global round knows nothing of it."""
    epsilon: float | None = None
    """Differential privacy spent up to and with this round, at most, at the task's delta; None where no noise is added."""

    @property
    def slowest(self) -> str:
        """Who took longest, and what most of the time went into, in words; empty where nobody was timed."""
        if not self.timing:
            return ""
        name, timing = max(self.timing.items(), key=lambda item: item[1]["total"])
        part = max(("compute", "transfer", "wait"), key=lambda part: timing[part])
        return f"{name} {timing['total']:.3g} s, {part} {timing[part]:.3g} s"

    def to_json(self) -> dict[str, Any]:
        """Plain data for a message or a database."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RoundReport:
        """The report that `to_json` wrote."""
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Round:
    """The outcome of one round."""

    learned: Params
    """Means of what the members sent; names that nobody sent are absent."""
    samples: int
    train_loss: float
    before: dict[str, Tally]
    """Validation of the model that entered, for each end."""
    detail: dict[str, Any]
    missing: dict[str, str]
    seconds: float
    asked: list[str]
    timing: dict[str, Timing]

    def report(self, spec: TaskSpec, layer: Layer, name: str, round_: int) -> RoundReport:
        """This round in figures."""
        pooled, per_end = figures(spec, self.before)
        return RoundReport(
            spec.name,
            layer,
            name,
            round_,
            False,
            pooled,
            per_end,
            self.train_loss,
            self.samples,
            sorted(self.missing),
            self.missing,
            self.seconds,
            self.detail,
            self.asked,
            self.timing,
            epsilon=spent(spec, round_ * (spec.rounds.cluster if layer == "cloud" else 1)),
        )


async def run_round(members: Members, round_: int, params: Params, chosen: Collection[str] | None = None) -> Round:
    """Fit all members, or those ``chosen``, from ``params`` and average by samples; the same answers give the same bits in whatever
    order they come.

    An update that does not fit the model counts as missing. Raises QuorumError.
    """
    start = time.perf_counter()
    mean = Mean(params)
    updates: dict[str, Update] = {}
    timing: dict[str, Timing] = {}

    async def take(name: str, timed: tuple[Answer, float]) -> None:
        answer, total = timed
        await asyncio.to_thread(mean.add, await answer.open(), float(answer.update.samples), name)
        updates[name] = answer.update
        timing[name] = _timing(answer, total)

    missing = await members.each(f"round {round_}", lambda learner: _timed(learner, round_, params), take, chosen)
    samples = sum(update.samples for update in updates.values())
    loss = sum(update.train_loss * update.samples for update in updates.values()) / samples if samples else 0.0
    return Round(
        await asyncio.to_thread(mean.result, {}),
        samples,
        loss,
        ends_below({name: update.before for name, update in updates.items()}),
        {name: dict(update.report) for name, update in updates.items() if update.report},
        missing,
        time.perf_counter() - start,
        sorted(learner.name for learner in members.learners if chosen is None or learner.name in chosen),
        timing,
    )


def spent(spec: TaskSpec, updates: int) -> float | None:
    """The epsilon that so many noised updates of an end have cost at the task's delta; None where no noise is added."""
    privacy = spec.privacy
    if privacy.noise_multiplier == 0 or updates == 0:
        return None
    return dp.epsilon(privacy.noise_multiplier, updates, privacy.delta)


def ends_below(tallies: Mapping[str, Mapping[str, Tally]]) -> dict[str, Tally]:
    """Tallies by end from tallies by learner: the learner that is the end keeps its name, others stand before the end's."""
    return {
        end if end == learner else f"{learner}/{end}": tally
        for learner, ends in tallies.items()
        for end, tally in ends.items()
    }


def figures(spec: TaskSpec, before: Mapping[str, Tally]) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Metrics over all ends pooled, and of each end."""
    return metrics(spec, merge(before.values())), {end: metrics(spec, tally) for end, tally in before.items()}


async def _timed(learner: Learner, round_: int, params: Params) -> tuple[Answer, float]:
    """The answer, and after how many seconds it came."""
    start = time.perf_counter()
    answer = await _answer(learner, round_, params)
    return answer, time.perf_counter() - start


def _timing(answer: Answer, total: float) -> Timing:
    compute = float(answer.update.report.get("seconds", total))
    return {
        "total": total,
        "compute": compute,
        "transfer": answer.transfer_s,
        "wait": max(0.0, total - compute - answer.transfer_s),
    }


async def _answer(learner: Learner, round_: int, params: Params) -> Answer:
    if isinstance(learner, Deferring):
        return await learner.answer(round_, params)
    update = await learner.fit(round_, params)

    async def opened() -> Params:
        return update.params

    return Answer(update, opened)
