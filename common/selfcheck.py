"""Whether a server really serves: it asks itself, over the address and the TLS that others use."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from contextlib import suppress

from common.watchdog import Pulse

EVERY_S = 10.0
RETRY_S = 1.0
_REQUEST = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to knock when it listens everywhere


class SelfCheck:
    """Any answer will do, a refusal too; what counts is that one comes."""

    def __init__(self, name: str, address: tuple[str, int], tls: ssl.SSLContext | None) -> None:
        self.pulse = Pulse(name)
        self.at(address, tls)

    def at(self, address: tuple[str, int], tls: ssl.SSLContext | None) -> None:
        """Where to ask from now on, and whether by TLS."""
        host, port = address
        self._host, self._port = _EVERYWHERE.get(host, host), port
        self._tls = _any_certificate() if tls is not None else None

    async def run(self) -> None:
        """Ask now and then, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            if _is_here(self._host):
                with self.pulse.work(f"answer a request at {self._host}:{self._port}"):
                    await self._answer()

    async def _answer(self) -> None:
        """Return once there was one."""
        while True:
            if await self._answered():
                return
            await asyncio.sleep(RETRY_S)

    async def _answered(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        except ssl.SSLError:
            return True  # it speaks a suite, or wants a certificate, that we do not have: it speaks
        except OSError:
            return False
        try:
            writer.write(_REQUEST)
            return bool(await reader.readline())
        except ssl.SSLError:
            return True
        except OSError:
            return False
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def _any_certificate() -> ssl.SSLContext:
    """Nothing secret is said, and the certificate is our own."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _is_here(host: str) -> bool:
    """Whether an interface has this address at present; a listener may wait for one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        try:
            one.bind((host, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True
