"""What a daemon and those who run it tell each other: stop, ready, stopping, and why it could not go on."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from common.errors import FedfabError


def stop_signal() -> asyncio.Event:
    """Set at the first SIGTERM or SIGINT; a second one ends the process at once, as it always would have."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def asked(number: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number)
    return stop


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)), when it asked to be told and still listens."""
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
