"""Where an HTTP server is asked: an address, and a TLS context, that may change while requests are answered."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import ExitStack

from aiohttp import web

BACKLOG = 1024
IP_FREEBIND = 15
"""ip(7): an address may be bound before its interface has it. A cabinet is powered up before the switch beside it."""


class Listener:
    """Serves the application of one runner at one address at a time."""

    def __init__(self, runner: web.BaseRunner) -> None:
        self._runner = runner
        self._at: tuple[str, int] | None = None
        self._bound = ExitStack()
        self._sockets: list[socket.socket] = []
        self._sites: dict[web.SockSite, socket.socket] = {}

    async def open(self, host: str, port: int, tls: ssl.SSLContext | None) -> tuple[str, int]:
        """Listen here, and no more where it did before; answers with the address. Connections that are open stay.

        At the same address only the TLS of new connections changes, and none is refused meanwhile. Raises OSError
        when the address cannot be had; then nothing has changed.
        """
        before = self._bound
        if self._at != (host, port):
            self._bound, self._sockets = _bind(host, port)
            self._at = host, port
        old, self._sites = self._sites, {}
        for bound in self._sockets:
            own = bound.dup()
            site = web.SockSite(self._runner, own, ssl_context=tls, backlog=BACKLOG)
            await site.start()
            self._sites[site] = own
        await _retire(old)
        if before is not self._bound:
            before.close()
        address: tuple[str, int] = self._sockets[0].getsockname()[:2]
        return address

    async def close(self) -> None:
        """Take no more connections; the runner ends those that are open."""
        await _retire(self._sites)
        self._bound.close()
        self._at, self._sites = None, {}


def _bind(host: str, port: int) -> tuple[ExitStack, list[socket.socket]]:
    """A socket for each address of ``host``, and what closes them."""
    with ExitStack() as opened:
        sockets = []
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            one = opened.enter_context(socket.socket(family, kind, protocol))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            sockets.append(one)
        return opened.pop_all(), sockets


async def _retire(sites: dict[web.SockSite, socket.socket]) -> None:
    """Stop accepting, then close: asyncio forgets a connection that it accepts in the turn in which its server is closed."""
    loop = asyncio.get_running_loop()
    for own in sites.values():
        loop.remove_reader(own)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for site in sites:
        await site.stop()
