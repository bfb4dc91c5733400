"""What a member learns about the line on its way: how long it may be silent, how much may pass in one piece."""

from __future__ import annotations

SHORTEST_POLL_S = 0.5
WHOLE_POLLS = 100
"""After so many polls that were not cut, a longer one is tried."""

SMALLEST_BYTES = 64 << 10
SLOW_S, FAST_S = 20.0, 5.0
"""A piece should take no longer, and need not take less: what a cut loses is at most one piece's time behind a proxy that buffers."""


class Polls:
    """How long a poll waits: half of what a line was cut after, longer again by and by."""

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._whole = 0
        self.seconds = longest_s

    def cut(self, seconds: float) -> None:
        """Something on the way cuts silent lines, but not those silent for so long."""
        self.seconds, self._whole = seconds, 0

    def whole(self) -> None:
        """A poll waited to its end."""
        self._whole += 1
        if self._whole % WHOLE_POLLS == 0:
            self.seconds = min(self._longest_s, self.seconds * 1.5)


def shorter(wait_s: float, silent_s: float) -> float:
    """What to try behind a poll of ``wait_s`` that was cut after so long."""
    return max(SHORTEST_POLL_S, min(wait_s, silent_s) / 2)


class Pieces:
    """How many bytes of a blob go in one request: half after a refusal or a cut, fewer on a slow line, more again on a fast one."""

    def __init__(self, largest: int) -> None:
        self._largest = max(largest, SMALLEST_BYTES)
        self.size = self._largest

    @property
    def smallest(self) -> bool:
        """Whether halving is at its end."""
        return self.size == SMALLEST_BYTES

    def refused(self) -> None:
        """Something on the way takes no bodies of this size (413): never try it again."""
        self.cut()
        self._largest = self.size

    def cut(self) -> None:
        """The line broke with a piece under way."""
        self.size = max(SMALLEST_BYTES, self.size // 2)

    def passed(self, size: int, seconds: float) -> None:
        """A piece of ``size`` bytes went through."""
        if size < self.size:
            return
        if seconds > SLOW_S:
            self.size = max(SMALLEST_BYTES, self.size // 2)
        elif seconds < FAST_S:
            self.size = min(self._largest, self.size * 2)
