"""What the kernel does for us: it finds out in bounded time that the other end has vanished, and takes no more than the line carries."""

from __future__ import annotations

import socket
from typing import Any

PROBE_S = 10
"""A silent line is asked so often whether it is still there."""
DEAD_S = 30
"""Sent bytes, or such questions, without an answer for so long: the line is dead."""

UNSENT_BYTES = 128 << 10
"""What may lie in the kernel unsent: on a thin line megabytes would hide there, and what was written would not be what has moved."""


def watchful(opened: socket.socket) -> None:
    """Have the kernel watch a TCP socket (tcp(7)); where a system lacks an option, its own defaults hold."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", PROBE_S),
        ("TCP_KEEPINTVL", PROBE_S),
        ("TCP_KEEPCNT", DEAD_S // PROBE_S),
        ("TCP_USER_TIMEOUT", DEAD_S * 1000),
        ("TCP_NOTSENT_LOWAT", UNSENT_BYTES),
    ):
        if hasattr(socket, name):
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def watchful_socket(address: tuple[Any, ...]) -> socket.socket:
    """A new socket for what ``getaddrinfo`` found (aiohttp's ``socket_factory``)."""
    family, kind, protocol, *_ = address
    opened = socket.socket(family, kind, protocol)
    watchful(opened)
    return opened
