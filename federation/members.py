"""The learners of one aggregation, asked side by side and taken in one fixed order, whatever order they answer in."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from common.errors import FedfabError
from federation import progress
from federation.errors import FederationError, QuorumError
from models.learner import Learner
from models.spec import RoundsSpec

log = structlog.get_logger()
T = TypeVar("T")


class Members:
    """Learners in the order of their names, with the quorum and the deadline of the task.

    Raises FederationError FF-FED-030 where there is none, or two bear one name.
    """

    def __init__(self, learners: Sequence[Learner], rounds: RoundsSpec) -> None:
        self.learners = sorted(learners, key=lambda learner: learner.name)
        self.refused: dict[str, str] = {}
        self._rounds = rounds
        names = [learner.name for learner in self.learners]
        if len(set(names)) != len(names) or not names:
            raise FederationError(
                "FF-FED-030",
                f"expected one or more learners, each with a name of its own, got {names}",
                hint="a task needs at least one end; two ends or gateways must not bear one name",
            )

    def refuse(self, name: str, reason: str) -> None:
        """Leave a learner out of all that follows; the quorum still counts it."""
        log.error("member refused", member=name, reason=reason)
        self.refused[name] = reason

    async def each(
        self, what: str, call: Callable[[Learner], Awaitable[T]], take: Callable[[str, T], Awaitable[None]]
    ) -> dict[str, str]:
        """Make ``call`` to all at once; ``take`` the answers one by one in the order of names.

        Who fails, or shows no progress for the task's ``deadline_s``, is left out; so is one whose answer ``take`` refuses.
        Returns who is missing and why. Raises QuorumError where that is too many.
        """
        missing = dict(self.refused)
        async with asyncio.TaskGroup() as tasks:
            running = {
                learner.name: tasks.create_task(self._guarded(learner, call))
                for learner in self.learners
                if learner.name not in self.refused
            }
            for name, task in running.items():
                answer = await task
                try:
                    if isinstance(answer, _Answer):
                        await take(name, answer.value)
                    else:
                        missing[name] = answer
                except FedfabError as error:
                    missing[name] = f"{error.code}: {error.message}"
        for name in missing.keys() - self.refused.keys():
            log.warning("member missing", call=what, member=name, reason=missing[name])
        self._require_quorum(what, missing)
        return missing

    async def ask(self, what: str, call: Callable[[Learner], Awaitable[T]]) -> tuple[dict[str, T], dict[str, str]]:
        """`each` where all answers are wanted at once: answers by name, in the order of names, and who is missing."""
        answers: dict[str, T] = {}

        async def take(name: str, answer: T) -> None:
            answers[name] = answer

        missing = await self.each(what, call, take)
        return answers, missing

    def _require_quorum(self, what: str, missing: dict[str, str]) -> None:
        needed = math.ceil(self._rounds.quorum * len(self.learners) - 1e-9)
        answered = len(self.learners) - len(missing)
        if answered < needed:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
            raise QuorumError(
                "FF-FED-031",
                f"{what}: {answered} of {len(self.learners)} members answered, {needed} are needed. Missing: {reasons}",
                hint="mend the members named, or lower rounds.quorum; the task goes on from its last finished round",
            )

    async def _guarded(self, learner: Learner, call: Callable[[Learner], Awaitable[T]]) -> _Answer[T] | str:
        """The answer, or why there is none: one member's failure never ends the round of the others."""
        try:
            return _Answer(await progress.within(self._rounds.deadline_s, lambda: call(learner)))
        except TimeoutError:
            return f"no progress for {self._rounds.deadline_s:g} s"
        except FedfabError as error:
            return f"{error.code}: {error.message}"
        except Exception as error:
            log.exception("member failed", member=learner.name)
            return f"{type(error).__name__}: {error}"


@dataclass(frozen=True, slots=True)
class _Answer(Generic[T]):
    value: T
