"""When to poll: a fixed grid in time, so that the length of a poll adds no drift. Pure."""

from __future__ import annotations


class Rhythm:
    """Poll times ``every_s`` apart from ``now`` on. Those that could not be kept are left out, never made up for in a rush."""

    def __init__(self, every_s: float, now: float) -> None:
        self._every_s = every_s
        self._due = now
        self.missed = 0
        """Polls left out before the one that is next."""

    def wait(self, now: float) -> float:
        """Seconds to wait, at ``now``, for the poll that is next; 0 where it is due already."""
        self.missed = max(0, int((now - self._due) // self._every_s))
        self._due += self.missed * self._every_s
        wait = max(0.0, self._due - now)
        self._due += self._every_s
        return wait
