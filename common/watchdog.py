"""Knows when a part of a daemon hangs, writes down which and what it was doing, and ends the process so that it is started again.

A part is watched by its work, never by a timer: it says when it begins something and when it has it done (`Pulse`). A part with
nothing to do is well. Only while all parts are well systemd is told so (WATCHDOG=1, sd_notify(3)).
"""

from __future__ import annotations

import asyncio
import faulthandler
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

import structlog

from common.files import write_atomic
from common.service import Exit, notify

log = structlog.get_logger()

RECORD = "hang.txt"
"""Written in the data folder by the process that hung."""
TOLD = "last-hang.txt"
"""What the next start has made of it, after telling."""
_WRITING_S = 5.0

P = ParamSpec("P")
T = TypeVar("T")


class Pulse:
    """What one critical part has in hand, and since when nothing of it got done. From any thread."""

    def __init__(self, name: str, *, allow_s: float = 0.0) -> None:
        self.name = name
        self.allow_s = allow_s
        """How long one piece of its work may rightly take, on top of what the watchdog grants every part."""
        self._moved = time.monotonic()
        self._doing: dict[object, str] = {}

    def begin(self, doing: str) -> Callable[[], None]:
        """The part has ``doing`` in hand, until what this returns is called."""
        token = object()
        if not self._doing:
            self._moved = time.monotonic()
        self._doing[token] = doing

        def done() -> None:
            self._moved = time.monotonic()
            self._doing.pop(token, None)

        return done

    @contextmanager
    def work(self, doing: str) -> Iterator[None]:
        """While this lasts the part has ``doing`` in hand."""
        done = self.begin(doing)
        try:
            yield
        finally:
            done()

    def during(self, doing: str, function: Callable[P, T]) -> Callable[P, T]:
        """``function``, with its calls as work of this part."""

        def watched(*args: P.args, **named: P.kwargs) -> T:
            with self.work(doing):
                return function(*args, **named)

        return watched

    def beat(self) -> None:
        """A step of what is in hand is done."""
        self._moved = time.monotonic()

    def stuck_s(self) -> float:
        """For how long nothing has got done, beyond what its work may rightly take; 0 for a part with nothing in hand."""
        return max(0.0, time.monotonic() - self._moved - self.allow_s) if self._doing else 0.0

    @property
    def doing(self) -> str:
        """What is in hand, the oldest first."""
        return "; ".join(list(self._doing.values()))


class Watchdog:
    """A thread that looks at all parts, and at the event loop itself; a loop that hangs could not.

    A part with work in hand that gets nothing done for half of ``deadline_s`` hangs: that is logged and written to `RECORD` in
    ``folder``, with the stacks of all threads and tasks, and systemd is not told any more that all is well. A part that moves again is
    forgiven. After the whole ``deadline_s`` the process ends with `Exit.HUNG`.
    """

    def __init__(self, deadline_s: float, folder: Path, leave: Callable[[int], object] = os._exit) -> None:
        self._loop = asyncio.get_running_loop()
        self._turning = Pulse("event loop")
        self._turned = threading.Event()
        self._turned.set()
        self._parts = [self._turning]
        self._deadline_s, self._folder, self._leave = deadline_s, folder, leave
        self._over = threading.Event()
        self._hanging: set[str] = set()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(_WRITING_S)

    def watch(self, *parts: Pulse) -> None:
        """From now on these count, too."""
        self._parts += parts

    def _watch(self) -> None:
        while not self._over.wait(min(self._deadline_s / 8, threading.TIMEOUT_MAX)):
            self._ask_the_loop()
            hanging = [part for part in self._parts if part.stuck_s() > self._deadline_s / 2]
            for part in hanging:
                if part.name not in self._hanging:
                    self._accuse(part)
            for name in self._hanging - {part.name for part in hanging}:
                log.warning("part moves again", part=name)
            self._hanging = {part.name for part in hanging}
            if not hanging:
                notify("WATCHDOG=1")
            elif any(part.stuck_s() > self._deadline_s for part in hanging):
                self._leave(Exit.HUNG)

    def _ask_the_loop(self) -> None:
        """Its work is to answer this; one question at a time."""
        if self._turned.is_set():
            self._turned.clear()
            done = self._turning.begin("run what is due")

            def answer() -> None:
                done()
                self._turned.set()

            try:
                self._loop.call_soon_threadsafe(answer)
            except RuntimeError:  # closed: the process is leaving
                self._over.set()

    def _accuse(self, part: Pulse) -> None:
        """In a thread of its own, because what blocks the part may block a file or the log as well."""
        doing, stuck_s = part.doing, part.stuck_s() + part.allow_s
        since = (datetime.now(UTC) - timedelta(seconds=stuck_s)).isoformat(" ", "seconds")

        def tell() -> None:
            log.error("part hangs", part=part.name, doing=doing, since=since, folder=str(self._folder))
            notify(f"STATUS={part.name} hangs since {since}: {doing}")

        def write() -> None:
            head = f"part: {part.name}\ndoing: {doing}\nsince: {since}\npid: {os.getpid()}\n"
            try:
                write_atomic(self._folder / RECORD, f"{head}\n{self._stacks()}".encode(), mode=0o600)
            except OSError as error:
                log.warning("what hangs cannot be written down", problem=str(error))

        for work in (write, tell):
            helper = threading.Thread(target=work, daemon=True)
            helper.start()
            helper.join(_WRITING_S)

    def _stacks(self) -> str:
        with tempfile.TemporaryFile() as file:
            faulthandler.dump_traceback(file, all_threads=True)
            file.seek(0)
            threads = file.read().decode(errors="replace")
        tasks = (f"{task.get_name()}: {task.get_stack(limit=1)}" for task in asyncio.all_tasks(self._loop))
        return "\n".join([threads, "Tasks:", *tasks, ""])


def deadline_s(wanted_s: float | None) -> float:
    """How long a part may hang: what a person wants, or what systemd does (WATCHDOG_USEC); where nobody wants a watchdog, for ever."""
    microseconds, pid = os.environ.get("WATCHDOG_USEC"), os.environ.get("WATCHDOG_PID")
    asked_s = int(microseconds) / 1e6 if microseconds and pid in (None, str(os.getpid())) else math.inf
    return min(wanted_s or math.inf, asked_s)


def last_hang(folder: Path) -> dict[str, str] | None:
    """Why an earlier process of this folder was ended by its watchdog: part, doing, since, pid; None where that never happened.

    The first call after it logs it.
    """
    record, told = folder / RECORD, folder / TOLD
    new = record.exists()
    try:
        head = (record if new else told).read_text().partition("\n\n")[0]
    except OSError:
        return None
    found = dict(line.partition(": ")[::2] for line in head.splitlines())
    if new:
        log.error("the process before this one hung", **found, stacks=str(told))
        try:
            record.replace(told)
        except OSError as error:
            log.warning("told again at the next start", problem=str(error))
    return found
