"""When to poll: a fixed grid in time, so that the length of a poll adds no drift. Pure."""

from __future__ import annotations


class Rhythm:
    """Poll times ``every_s`` apart from ``now`` on. Those that could not be kept are left out, never made up for in a rush."""

    def __init__(self, every_s: float, now: float) -> None:
        self._every_s = every_s
        self._due = now

    def wait(self, now: float) -> float:
        """Seconds to wait, at ``now``, for the poll that is next; 0 where it is due already."""
        late = now - self._due
        if late >= self._every_s:
            self._due += late // self._every_s * self._every_s
        wait = max(0.0, self._due - now)
        self._due += self._every_s
        return wait
