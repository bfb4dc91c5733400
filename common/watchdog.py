"""Knows when a part of a daemon hangs, says which and what it was doing, and ends the process so that it is started again.

A part is watched by its work, never by a timer: it says when it begins something and when it has it done (`Pulse`). A part with
nothing to do is well. Only while all parts are well systemd is told so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Pulse:
    """What one critical part has in hand, and since when nothing of it got done. From any thread."""

    def __init__(self, name: str, *, allow_s: float = 0.0) -> None:
        self.name = name
        self.allow_s = allow_s
        """How long one piece of work may rightly take, on top of what the watchdog grants every part."""
        self.moved = time.monotonic()
        """When something was last begun out of idleness, or done."""
        self._doing: dict[int, str] = {}

    @contextmanager
    def work(self, doing: str) -> Iterator[None]:
        """While this lasts the part has ``doing`` in hand."""
        token = object()
        if not self._doing:
            self.moved = time.monotonic()
        self._doing[id(token)] = doing
        try:
            yield
        finally:
            self.moved = time.monotonic()
            del self._doing[id(token)]

    def beat(self) -> None:
        """A step of what is in hand is done."""
        self.moved = time.monotonic()

    def stuck_s(self, now: float) -> float:
        """For how long nothing has got done; 0 for a part with nothing in hand."""
        return now - self.moved if self._doing else 0.0

    @property
    def doing(self) -> str:
        """What is in hand, the oldest first."""
        return "; ".join(list(self._doing.values()))
