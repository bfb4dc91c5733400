"""Whether the coordinator can be reached, step by step, so that the step that fails says whose business it is."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from common.errors import FedfabError
from federation.client import Link
from gateway.config import Config, Trust
from trust.identity import Identity, TrustStore

STEP_S = 10.0


class Step(NamedTuple):
    """One step and how it went."""

    name: str
    ok: bool
    told: str

    def __str__(self) -> str:
        return f"{'ok    ' if self.ok else 'FAILED'}  {self.name}: {self.told}"


async def reach(config: Config) -> AsyncIterator[Step]:
    """Name, connection, own certificate, session; ends at the first that fails."""
    if config.coordinator is None:
        yield Step("coordinator", True, "none is configured, the gateway learns alone")
        return
    parts = urlsplit(config.coordinator.route.proxy or config.coordinator.url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    what = "proxy" if config.coordinator.route.proxy else "coordinator"
    steps: tuple[tuple[str, Callable[[], Awaitable[str]]], ...] = (
        (f"name of the {what}", lambda: _resolve(host, port)),
        (f"connection to the {what}", lambda: _connect(host, port)),
        ("own certificate", lambda: asyncio.to_thread(_identity, config)),
        ("TLS and session with the coordinator", lambda: _session(config)),
    )
    for name, attempt in steps:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(STEP_S):
                told = await attempt()
        except (FedfabError, OSError, TimeoutError) as error:
            why = f"no answer within {STEP_S:g} s" if isinstance(error, TimeoutError) else str(error)
            yield Step(name, False, why)
            return
        yield Step(name, True, f"{told} ({(time.perf_counter() - started) * 1000:.0f} ms)")


async def _resolve(host: str, port: int) -> str:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return f"{host} is {', '.join(dict.fromkeys(str(address[0]) for *_, address in found))}"


async def _connect(host: str, port: int) -> str:
    _, writer = await asyncio.open_connection(host, port)
    here = writer.get_extra_info("sockname")[0]
    writer.close()
    return f"{host}:{port} answers, from {here}"


def _identity(config: Config) -> str:
    identity, _ = _credentials(config)
    return f"{identity.peer.name}, role {identity.peer.role}, valid until {identity.peer.not_after:%F}"


async def _session(config: Config) -> str:
    if config.coordinator is None:
        return ""
    async with Link(*_credentials(config), config.coordinator.url, config.coordinator.route) as link:
        session = await link.hello()
    return (
        f"{session.aggregator.name} speaks version {session.version} and knows {len(session.participants)} participants"
    )


def _credentials(config: Config) -> tuple[Identity, TrustStore]:
    trust = config.trust or Trust()
    return Identity.load(trust.identity, trust.suite), TrustStore.load(trust.identity, trust.suite)
