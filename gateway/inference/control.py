"""The gateway's own socket, `control.sock` in its data folder: for the command line on this machine, without certificate or secret.

It is a Unix socket that only the gateway's user and root can open; whoever could open it could read the store as well.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog
from aiohttp import web

log = structlog.get_logger()


def path(data_dir: Path) -> Path:
    """Where a gateway with this data folder has its socket."""
    return data_dir / "control.sock"


async def listen(runner: web.BaseRunner, at: Path) -> None:
    """Serve there, too. Where there can be no socket, such as on a full disk, that is logged and the rest is served."""
    try:
        await web.SockSite(runner, _bound(at)).start()
    except OSError as error:
        log.warning("the command line has to ask over the network", socket=str(at), problem=error.strerror)


def connect(at: Path, timeout_s: float) -> socket.socket:
    """A connection to the gateway that serves there. Raises OSError."""
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        one.settimeout(timeout_s)
        with _short(at) as name:
            one.connect(name)
    except BaseException:
        one.close()
        raise
    return one


def remove(at: Path) -> None:
    """Take the socket away, or what a process that was killed has left of it."""
    with suppress(OSError):
        at.unlink()


def _bound(at: Path) -> socket.socket:
    remove(at)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(at) as name:
            one.bind(name)
        at.chmod(0o600)  # before anybody can connect: it does not listen yet
    except BaseException:
        one.close()
        raise
    return one


@contextmanager
def _short(at: Path) -> Iterator[str]:
    """A name of at most 107 bytes for a socket, however long its path is (unix(7))."""
    folder = os.open(at.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{at.name}"
    finally:
        os.close(folder)
