"""The learners of one aggregation, asked side by side and taken in one fixed order, whatever order they answer in."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog

from common.errors import FedfabError
from federation import progress
from federation.errors import FederationError, QuorumError
from models.learner import Learner
from models.spec import RoundsSpec

log = structlog.get_logger()
T = TypeVar("T")
Call = Callable[[Learner], Coroutine[Any, Any, T]]


class Members:
    """Learners in the order of their names, with the quorum and the deadline of the task.

    Raises FederationError FF-FED-030 where there is none, or two bear one name.
    """

    def __init__(self, learners: Sequence[Learner], rounds: RoundsSpec) -> None:
        self.learners = sorted(learners, key=lambda learner: learner.name)
        self.out: dict[str, str] = {}
        """Who is not asked, and why: refused for good, or not joined yet. The quorum counts them."""
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
        self.out[name] = reason

    async def each(
        self,
        what: str,
        call: Call[T],
        take: Callable[[str, T], Awaitable[None]],
        chosen: Collection[str] | None = None,
    ) -> dict[str, str]:
        """Make ``call`` to all at once, or to those ``chosen``; ``take`` the answers one by one in the order of names.

        Who fails is left out; so is who shows no progress for the task's ``deadline_s``, if the quorum can spare it (otherwise it is
        waited for, ``wait_s`` at most), and one whose answer ``take`` refuses. Returns who is missing and why. Raises QuorumError
        where that is too many.
        """
        wanted = len(self.learners) if chosen is None else len(chosen)
        needed = max(1, math.ceil(self._rounds.quorum * wanted - 1e-9))
        asked = [
            learner
            for learner in self.learners
            if learner.name not in self.out and (chosen is None or learner.name in chosen)
        ]
        missing = dict(self.out)
        spare = _Spare(len(asked) - needed, self._rounds)
        answered = 0
        async with asyncio.TaskGroup() as tasks:
            running = {learner.name: tasks.create_task(self._guarded(what, learner, call, spare)) for learner in asked}
            for name, task in running.items():
                answer = await task
                try:
                    if isinstance(answer, _Answer):
                        await take(name, answer.value)
                        answered += 1
                    else:
                        missing[name] = answer
                except FedfabError as error:
                    missing[name] = f"{error.code}: {error.message}"
        for name in missing.keys() - self.out.keys():
            log.warning("member missing", call=what, member=name, reason=missing[name])
        if answered < needed:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
            raise QuorumError(
                "FF-FED-031",
                f"{what}: {answered} of {wanted} members answered, {needed} are needed. Missing: {reasons}",
                hint="mend the members named, or lower rounds.quorum; the task goes on from its last finished round",
            )
        return missing

    async def ask(
        self, what: str, call: Call[T], chosen: Collection[str] | None = None
    ) -> tuple[dict[str, T], dict[str, str]]:
        """`each` where all answers are wanted at once: answers by name, in the order of names, and who is missing."""
        answers: dict[str, T] = {}

        async def take(name: str, answer: T) -> None:
            answers[name] = answer

        missing = await self.each(what, call, take, chosen)
        return answers, missing

    async def _guarded(self, what: str, learner: Learner, call: Call[T], spare: _Spare) -> _Answer[T] | str:
        """The answer, or why there is none: one member's failure never ends the round of the others."""

        def give_up(silent_s: float) -> bool:
            given_up = spare.take(silent_s)
            if not given_up:
                log.warning("waiting for a member", call=what, member=learner.name, silent_s=round(silent_s, 1))
            return given_up

        try:
            return _Answer(await progress.within(self._rounds.deadline_s, lambda: call(learner), give_up))
        except TimeoutError:
            return f"no progress for {self._rounds.deadline_s:g} s"
        except FedfabError as error:
            spare.left -= 1
            return f"{error.code}: {error.message}"
        except Exception as error:
            spare.left -= 1
            log.exception("member failed", member=learner.name)
            return f"{type(error).__name__}: {error}"


@dataclass(slots=True)
class _Spare:
    """How many of those asked may be missing before the quorum is lost."""

    left: int
    rounds: RoundsSpec

    def take(self, silent_s: float) -> bool:
        """Whether a member silent for so long is given up."""
        if self.left == 0 and silent_s < self.rounds.deadline_s + self.rounds.wait_s:
            return False
        self.left -= 1
        return True


@dataclass(frozen=True, slots=True)
class _Answer(Generic[T]):
    value: T
