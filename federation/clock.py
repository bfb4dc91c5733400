"""The time that a federation agrees on: the aggregator's. A member whose own clock is wrong corrects by the difference.

TLS and certificates go by the machine's own clock, always: a wrong time must not make an expired certificate good.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

log = structlog.get_logger()

NOTEWORTHY_S = 60.0
"""A difference beyond this is logged; below, it is a matter of the line."""


class Clock:
    """Seconds since 1970 as the aggregator counts them; our own until `learn` was called."""

    def __init__(self, local: Callable[[], float] = time.time) -> None:
        self._local = local
        self._noted = False
        self.skew_s = 0.0
        """How far our clock is ahead of the aggregator's (below zero: behind), as measured last."""

    def now(self) -> float:
        """The present time."""
        return self._local() - self.skew_s

    def learn(self, theirs_s: float, waited_s: float) -> None:
        """The aggregator's time came, ``waited_s`` after it was asked for. Logged when it begins to differ much."""
        self.skew_s = self._local() - theirs_s - waited_s / 2
        far = abs(self.skew_s) > NOTEWORTHY_S
        if far and not self._noted:
            log.warning(
                "this machine's clock differs from the aggregator's",
                seconds_ahead=round(self.skew_s),
                hint="check timedatectl on both; messages go by the aggregator's clock, certificates by this machine's own",
            )
        self._noted = far
