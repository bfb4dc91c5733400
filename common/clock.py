"""Whether this machine's clock can be believed: is it synchronised, and has it jumped?

Nothing is refused because of it: a cabinet may stand for years without a time server. It is said once, and shown.
"""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import structlog

log = structlog.get_logger()

LOOK_S = 10.0
JUMP_S = 2.0
"""A step of the clock against the time that really passed; a time server that slews makes none."""
_TIMESYNCD = Path("/run/systemd/timesync/synchronized")
_TIME_ERROR = 5


def synchronised() -> bool | None:
    """As the kernel says (adjtimex(2)), or systemd-timesyncd; None where neither tells."""
    if _TIMESYNCD.exists():
        return True
    try:
        libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
        state = libc.adjtimex(ctypes.create_string_buffer(512))  # struct timex of zeros: modes = 0 only reads
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


class Clock:
    """``synchronised``, ``now`` and ``elapsed`` are for tests."""

    def __init__(
        self,
        *,
        synchronised: Callable[[], bool | None] = synchronised,
        now: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._ask, self._now, self._elapsed = synchronised, now, elapsed
        self._offset = now() - elapsed()
        self.synchronised: bool | None = None
        """None: this system does not tell."""
        self.jumps = 0
        self.last_jump_s = 0.0
        """Negative: back."""

    async def run(self) -> None:
        """Look every few seconds, until cancelled: nobody tells of a change."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Find out how the clock is, and log what has changed."""
        before, self.synchronised = self.synchronised, self._ask()
        if self.synchronised is False and before is not False:
            log.warning(
                "clock is not synchronised",
                now=datetime.fromtimestamp(self._now(), UTC).isoformat(" ", "seconds"),
                hint="times of samples and results may be wrong, certificates may seem expired; timedatectl shows why",
            )
        elif self.synchronised and before is False:
            log.info("clock is synchronised")
        offset = self._now() - self._elapsed()
        jump_s, self._offset = offset - self._offset, offset
        if abs(jump_s) >= JUMP_S:
            self.jumps += 1
            self.last_jump_s = jump_s
            log.warning("clock jumped", by_s=round(jump_s, 3), back=jump_s < 0)

    def status(self) -> dict[str, object]:
        """JSON-serialisable."""
        return {"synchronised": self.synchronised, "jumps": self.jumps, "last_jump_s": round(self.last_jump_s, 3)}
