"""The gateway as a member of the federation: in a session with the coordinator for as long as one is configured."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import structlog

from federation.metrics import Meter
from federation.node import Node
from federation.route import Route
from gateway.config import Config, Coordinator, Trust
from gateway.programs import Programs
from trust.identity import Identity, TrustStore

log = structlog.get_logger()

RETRY_S = 10.0
"""Before the federation is entered anew, after a failure that the node itself cannot bear, such as a full disk."""


class _Member(NamedTuple):
    identity: Identity
    trust: TrustStore
    coordinator: Coordinator
    route: Route


class Membership:
    """Raises TrustError or SecretError where the identity for a configured coordinator, or its proxy's password, cannot be used."""

    def __init__(self, config: Config, programs: Programs) -> None:
        self.meter = Meter()
        self._member = _member(config)
        self._folder = config.gateway.data_dir
        self._programs = programs
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Be a member until cancelled. Whatever goes wrong with that, reading and serving go on."""
        while True:
            async with asyncio.TaskGroup() as group:
                part = group.create_task(self._take_part(), name="federation session")
                await self._changed.wait()
                self._changed.clear()
                part.cancel()

    async def apply(self, config: Config) -> None:
        """Go over to another coordinator or identity; unfinished tasks are taken up again there. Raises TrustError."""
        self._member = await asyncio.to_thread(_member, config)
        self._changed.set()

    async def _take_part(self) -> None:
        if self._member is None:
            return
        identity, trust, coordinator, route = self._member
        trouble = ""
        while True:
            try:
                async with Node.member(
                    identity,
                    trust,
                    coordinator.url,
                    self._folder,
                    route=route,
                    outbox=coordinator.outbox,
                    meter=self.meter,
                ) as node:
                    trouble = ""
                    await self._programs.run(node, trust)
            except Exception as error:
                if trouble != repr(error):  # the first failure is logged, repeats of it are not
                    log.exception("taking part in the federation failed, trying again", after_s=RETRY_S)
                trouble = repr(error)
            await asyncio.sleep(RETRY_S)


def files(config: Config) -> Iterable[Path]:
    """What makes up the identity of this gateway."""
    if config.coordinator is None:
        return ()
    trust = config.trust or Trust()
    return (trust.identity / f"{trust.suite}.crt", trust.identity / f"{trust.suite}.key")


def _member(config: Config) -> _Member | None:
    """Who this gateway is to the coordinator; None where it learns alone."""
    if config.coordinator is None:
        return None
    trust = config.trust or Trust()
    identity, store = Identity.load(trust.identity, trust.suite), TrustStore.load(trust.identity, trust.suite)
    return _Member(identity, store, config.coordinator, config.coordinator.route)
