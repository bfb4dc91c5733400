"""What a daemon and those who run it tell each other: stop, reload, ready, stopping, and why it could not go on."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from enum import IntEnum
from typing import Any, TypeVar

from common.errors import FedfabError

T = TypeVar("T")


class Exit(IntEnum):
    """How a daemon ends, for whoever restarts it. 70 and 75 are those of sysexits.h."""

    WELL = 0
    DEFECT = 1
    """An error nobody foresaw; the log has its trace."""
    REFUSED = 2
    """An error with a code: the configuration, a file or an address cannot be used."""
    HUNG = 70
    """The watchdog ended it; the part that hung is in the log and in ``last-hang.txt``."""
    UNFINISHED = 75
    """Told to stop, it could not finish in time. What is on disk is whole."""


def stop_signal() -> asyncio.Event:
    """Set at the first SIGTERM or SIGINT; a second one ends the process at once, as it always would have."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def asked(number: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number)
    return stop


def reload_signal() -> asyncio.Event:
    """Set at each SIGHUP; whoever reloads clears it."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    return asked


def leave_within(seconds: float) -> None:
    """From now on the process has so long to end in good order; then it ends with `Exit.UNFINISHED`, whatever hangs."""

    def end() -> None:
        print(f"not finished within {seconds:g} s of being told to stop: leaving", file=sys.stderr, flush=True)
        os._exit(Exit.UNFINISHED)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What ``work`` returns; None where ``stop`` is set before it is done, and then it is cancelled."""
    async with asyncio.TaskGroup() as group:
        working, stopping = group.create_task(work), group.create_task(stop.wait())
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        done = working.done()
        working.cancel()
        stopping.cancel()
    return working.result() if done else None


@contextmanager
def reloading() -> Iterator[None]:
    """Tell systemd that a reload is under way, and when it is over (Type=notify-reload, or notify)."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
    try:
        yield
    finally:
        notify("READY=1")


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)), when it asked to be told and still listens. From any thread."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


@asynccontextmanager
async def one_cause() -> AsyncIterator[None]:
    """Raise a failure as itself where task groups have wrapped it on its way out, so that its message reaches a person.

    Of several, the first that a person can do something about.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        _, known = group.split(lambda error: not isinstance(error, FedfabError))
        cause: BaseException = known if known is not None else group
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        raise cause from group
