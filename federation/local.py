"""An aggregator's way to its members: straight into the mailboxes of the `Hub` in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from sqlalchemy import Connection

from federation.clock import Clock
from federation.hub import Hub
from federation.mailbox import Delivery, remove
from federation.presence import Presence
from federation.relay import Commit
from trust.blob import Manifest

_LONG_S = 3600.0
_DAY_S = 86400.0


class LocalRelay:
    """`federation.relay.Relay` over a hub, for the participant ``name``. The hub stays with its owner."""

    def __init__(self, hub: Hub, name: str) -> None:
        self.database, self.blobs, self.participants = hub.database, hub.blobs, hub.participants
        self.clock, self.meter, self.floors = Clock(), hub.meter, hub.floors
        self.connected = Presence()
        self.connected.set()
        self._hub, self._name = hub, name
        self._after = 0

    @property
    def idle(self) -> bool:
        """Nothing waits here."""
        return True

    def require_room(self) -> None:
        """The mailbox of each recipient has its own limit."""

    async def run(self) -> None:
        """Free what broken uploads left behind, once a day; nothing else is to be kept moving."""
        while True:
            await self._hub.sweep()
            await asyncio.sleep(_DAY_S)

    async def commit(self, commit: Commit) -> None:
        """One transaction with the messages themselves."""

        def also(connection: Connection) -> Iterable[str]:
            freed = commit.save(connection)
            return freed + remove(connection, self._name, commit.cursors) if commit.cursors else freed

        await self._hub.mailbox.put(commit.parcels, also)

    async def handed_over(self) -> None:
        """A commit is all there is to it."""

    async def receive(self) -> list[Delivery]:
        """From our own mailbox."""
        while not (found := await self._hub.mailbox.wait(self._name, self._after, _LONG_S)):
            pass
        self._after = found[-1].cursor
        return found

    async def refresh(self) -> None:
        """Who opens a session is known at once."""

    async def open(self, blob: str, manifest: Manifest, progress: Callable[[], None]) -> bytearray:
        """From the hub's own disk."""
        loop = asyncio.get_running_loop()

        def report() -> None:
            loop.call_soon_threadsafe(progress)

        return await asyncio.to_thread(self.blobs.open, blob, manifest, report)

    async def withdraw(self, message: str) -> None:
        """Also one that was fetched already."""
        await self._hub.mailbox.withdraw(self._name, [message])

    def hearing(self, member: str, listener: Callable[[], None]) -> AbstractContextManager[None]:
        """The server sees the bytes of blobs pass."""
        return self._hub.hearing(member, listener)

    async def __aenter__(self) -> LocalRelay:
        return self

    async def __aexit__(self, *error: object) -> None:
        """The hub is its owner's to close."""
