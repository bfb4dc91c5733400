"""What an aggregator keeps for its members: mailboxes, blobs, who they are. One per process, shared by all its listeners."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine

from federation import tables
from federation.blobs import BlobStore
from federation.database import Database
from federation.mailbox import Mailbox
from federation.participants import Participants
from trust.identity import Peer

MEMBER_ROLES = ("gateway", "end", "coordinator")


def members_only(peer: Peer) -> bool:
    """The least an aggregator asks of a caller: a role that takes part in learning."""
    return peer.role in MEMBER_ROLES


class Hub:
    """The tables of `federation.tables` must be there; `create` makes them where no migrations do."""

    def __init__(self, engine: Engine, folder: Path, *, admit: Callable[[Peer], bool] = members_only) -> None:
        self.database = Database(engine)
        self.blobs = BlobStore(folder)
        self.mailbox = Mailbox(self.database, self.blobs)
        self.participants = Participants(self.database)
        self._admit = admit
        self._listeners: dict[str, set[Callable[[], None]]] = {}

    @classmethod
    def create(cls, engine: Engine, folder: Path, *, admit: Callable[[Peer], bool] = members_only) -> Hub:
        """A hub that makes its own tables."""
        tables.metadata.create_all(engine)
        return cls(engine, folder, admit=admit)

    def admits(self, peer: Peer) -> bool:
        """Whether this caller may take part at all: its role, and what the owner of the hub says."""
        return members_only(peer) and self._admit(peer)

    async def sweep(self) -> None:
        """Free uploads that no message names; call it at the start."""
        old = await self.blobs.old()
        await self.blobs.drop(await self.database.read(lambda connection: tables.unnamed(connection, old)))

    def moved(self, member: str) -> None:
        """A member's bytes are on their way, in or out: progress, for a deadline."""
        for listener in self._listeners.get(member, ()):
            listener()

    @contextmanager
    def hearing(self, member: str, listener: Callable[[], None]) -> Iterator[None]:
        """Have ``listener`` called for every `moved` of ``member``."""
        listeners = self._listeners.setdefault(member, set())
        listeners.add(listener)
        try:
            yield
        finally:
            listeners.discard(listener)

    async def close(self) -> None:
        """Finish what is being written."""
        await self.database.close()
