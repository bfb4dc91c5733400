"""What a daemon and its service manager tell each other: stop, ready, stopping."""

from __future__ import annotations

import asyncio
import os
import signal
import socket


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
    """Tell systemd (sd_notify(3)), when it asked to be told."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
