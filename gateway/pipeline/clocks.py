"""The clock of a source, as its samples show it: a step back is told from samples that are merely late.

A source whose clock is set back (by hand, by a wrong summer time) would send nothing but late samples until it has caught up. So once
everything it sends has been late for `SETTLE_S`, while its clock ran on beside the gateway's, the step is believed: from then on its
samples take effect as if the clock had not been touched, until the source's own clock has passed that time. A backlog that a source
sends after a break is no step: its times run faster than the gateway's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.pipeline.events import NEVER, SECOND, highest_before, lasts

SETTLE_S = 60.0


class Step(NamedTuple):
    """A step back that is believed now."""

    end: int
    back_s: float


class SourceClock:
    """One source's clock as each of ``n`` ends sees it. The same samples in the same order give the same times."""

    def __init__(self, n: int, wait: int) -> None:
        self._wait = wait
        self._newest = np.full(n, NEVER, np.int64)
        self._since = np.full(n, NEVER, np.int64)
        """When, by the gateway's clock, the first of an unbroken run of late samples came."""
        self._first = np.full(n, NEVER, np.int64)
        """The source time of that sample."""
        self._shift = np.zeros(n, np.int64)
        """What is added to source times after a step back."""

    def times(
        self, end: NDArray[np.int64], time: NDArray[np.int64], received: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], list[Step]]:
        """When each of these samples was taken, ns: its source time, shifted after a step back. ``end`` goes up."""
        before = highest_before(end, time, self._newest)
        if (time < before - self._wait).any() or self._shift[end].any():
            return self._one_by_one(end, time, received)
        last = lasts(end)
        self._newest[end[last]] = np.maximum(before, time)[last]
        self._since[end[last]] = NEVER
        return time, []

    def state(self, end: int) -> list[int]:
        """What is known for one end, for `restore`."""
        return [int(column[end]) for column in self._columns()]

    def restore(self, end: int, state: list[int]) -> None:
        """Go on where `state` was taken."""
        for column, value in zip(self._columns(), state, strict=True):
            column[end] = value

    def _columns(self) -> tuple[NDArray[np.int64], ...]:
        return self._newest, self._since, self._first, self._shift

    def _one_by_one(
        self, ends: NDArray[np.int64], times: NDArray[np.int64], received: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], list[Step]]:
        taken, steps = [], []
        for end, time, now in zip(ends.tolist(), times.tolist(), received.tolist(), strict=True):
            newest, since = int(self._newest[end]), int(self._since[end])
            if time >= newest:  # its clock has caught up
                self._shift[end] = 0
            at = time + int(self._shift[end])
            if at >= newest - self._wait:
                self._newest[end], self._since[end] = max(newest, at), NEVER
            elif since == NEVER or not _beside(time - int(self._first[end]), now - since):
                self._since[end], self._first[end] = now, time
            elif now - since >= SETTLE_S * SECOND:
                steps.append(Step(end, (newest - int(self._first[end])) / SECOND))
                at = newest + SECOND  # not into the row of the newest sample before
                self._newest[end], self._since[end], self._shift[end] = at, NEVER, at - time
            taken.append(at)
        return np.array(taken, np.int64), steps


def _beside(one: int, other: int) -> bool:
    """Whether two clocks have gone about as far; a second either way is nothing."""
    return abs(one - other) <= other // 2 + SECOND
