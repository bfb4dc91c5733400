"""What serves, once it does: what a coordinator that runs can take over from a changed file, and what its watchdog asks of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from common.listener import Listener
from common.reload import Part, ReloadError
from common.selfcheck import EVERY_S, SelfCheck
from common.watchdog import Pulse
from coordinator.config import Config, Listen
from coordinator.credentials import credentials
from coordinator.scheduler import Scheduler
from coordinator.seeing import start_logging
from federation.hub import Hub
from federation.server import FederationServer
from trust import tls
from trust.identity import Identity


@dataclass
class Door:
    """One address, with the identity it shows."""

    settings: Listen
    listener: Listener
    members: FederationServer
    identity: Identity
    check: SelfCheck
    port: int

    @property
    def address(self) -> str:
        """As one dials it."""
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"https://{host}:{self.port}"

    async def renew(self, config: Config) -> None:
        """Show the certificate that lies there now. Raises TrustError or CoordinatorError, ReloadError for another key."""
        identity, trust = await asyncio.to_thread(credentials, config, self.settings.suite)
        if identity.peer.public != self.identity.peer.public:
            raise ReloadError(
                "FF-RELOAD-004",
                f"{identity.folder}: the {self.settings.suite} key is another one; messages are on their way that were sealed for the old",
                hint="a certificate can be renewed for its key while the coordinator runs (fedfab pki renew); for a new key restart it",
            )
        await self.listener.open(self.settings.host, self.settings.port, tls.server_context(identity, trust))
        self.members.renew(identity)
        self.identity = identity


@dataclass
class Served:
    """A whole coordinator at work."""

    doors: list[Door]
    hub: Hub
    scheduler: Scheduler
    database: Pulse = field(default_factory=lambda: Pulse("database"))

    @property
    def addresses(self) -> list[str]:
        """Where it can be dialled, in the order of the file."""
        return [door.address for door in self.doors]

    def parts(self) -> list[Part[Config]]:
        """What goes by which options; all others need a restart."""
        blobs, scheduler = self.hub.blobs, self.scheduler

        async def certificates(new: Config) -> None:
            for door in self.doors:
                await door.renew(new)

        async def limits(new: Config) -> None:
            blobs.max_bytes = new.limits.blob_gib << 30
            blobs.quota_bytes = new.limits.blobs_gib_per_member << 30
            await scheduler.slots.apply(new.limits.running_tasks)

        async def log(new: Config) -> None:
            start_logging(new)

        bounds = ("running_tasks", "blob_gib", "blobs_gib_per_member")
        return [
            Part("certificates", frozenset(), certificates, _certificates),
            Part("limits", frozenset(f"limits.{name}" for name in bounds), limits),
            Part("log", frozenset({"log.level", "log.format"}), log),
            Part("leaving", frozenset({"service.stop_s"})),
        ]

    async def checks(self) -> None:
        """Work for the watchdog to watch: each address asked, something written. Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for door in self.doors:
                group.create_task(door.check.run())
            while True:
                await asyncio.sleep(EVERY_S)
                with self.database.work("answer a query"), suppress(SQLAlchemyError):  # one that is down answers, too
                    await self.hub.database.write(lambda connection: connection.execute(text("SELECT 1")).scalar())


def _certificates(config: Config) -> Iterable[Path]:
    folder = config.trust.identity
    return [
        folder / name
        for one in config.listens
        for name in (f"{one.suite}.crt", f"{one.suite}.key", f"ca.{one.suite}.crt", f"crl.{one.suite}.pem")
    ]
