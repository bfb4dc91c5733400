"""Members that were not there when a task began: asked again and again in the background, so that no round waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from common.errors import FedfabError
from models.learner import Description, Learner, Moments


class Newcomer(NamedTuple):
    """What a member says of itself when it has come."""

    name: str
    description: Description
    moments: Moments


class Latecomers:
    """The questions under way. Call `leave` at the end."""

    def __init__(self) -> None:
        self._knocks: dict[str, asyncio.Task[Newcomer]] = {}

    def knock(self, learners: Sequence[Learner]) -> None:
        """Ask those who are not being asked already."""
        for learner in learners:
            if learner.name not in self._knocks:
                self._knocks[learner.name] = asyncio.create_task(_knock(learner))

    def arrived(self) -> Iterator[Newcomer | tuple[str, str]]:
        """Who has answered since the last call; of one that answered with an error, its name and the reason."""
        for name in [name for name, knock in self._knocks.items() if knock.done()]:
            try:
                yield self._knocks.pop(name).result()
            except FedfabError as error:
                yield name, f"{error.code}: {error.message}"

    async def leave(self) -> None:
        """Wait for nobody any more."""
        for knock in self._knocks.values():
            knock.cancel()
        await asyncio.gather(*self._knocks.values(), return_exceptions=True)


async def _knock(learner: Learner) -> Newcomer:
    return Newcomer(learner.name, await learner.describe(), await learner.moments())
