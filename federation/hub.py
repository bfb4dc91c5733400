"""What an aggregator keeps for its members: mailboxes, blobs, who they are. One per process, shared by all its listeners."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from federation import tables
from federation.blobs import MAX_BYTES, ORPHAN_S, QUOTA_BYTES, BlobStore
from federation.database import Database, claim
from federation.mailbox import Mailbox
from federation.metrics import Meter
from federation.participants import Participants
from trust.identity import Peer

MEMBER_ROLES = ("gateway", "end", "coordinator")


def members_only(peer: Peer) -> bool:
    """The least an aggregator asks of a caller: a role that takes part in learning."""
    return peer.role in MEMBER_ROLES


class Hub:
    """The tables of `federation.tables` must be there; `create` makes them where no migrations do."""

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        *,
        admit: Callable[[Peer], bool] = members_only,
        max_blob_bytes: int = MAX_BYTES,
        quota_bytes: int = QUOTA_BYTES,
    ) -> None:
        """Raises FederationError FF-FED-042 where another process has a hub on this database."""
        self._claim = claim(engine)
        self.database = Database(engine)
        self.blobs = BlobStore(folder, max_blob_bytes, quota_bytes)
        self.mailbox = Mailbox(self.database, self.blobs)
        self.participants = Participants(self.database)
        self.meter = Meter()
        self.floors: dict[str, int] = {}
        """The greatest sequence of the aggregator's that each member says it has met."""
        self._admit = admit
        self._listeners: dict[str, set[Callable[[], None]]] = {}

    @classmethod
    def create(cls, engine: Engine, folder: Path, **options: Any) -> Hub:
        """A hub that makes its own tables."""
        tables.metadata.create_all(engine)
        return cls(engine, folder, **options)

    def admits(self, peer: Peer) -> bool:
        """Whether this caller may take part at all: its role, and what the owner of the hub says."""
        return members_only(peer) and self._admit(peer)

    async def sweep(self, age_s: float = ORPHAN_S) -> None:
        """Free uploads that were begun so long ago and that no message names; call it now and then."""
        old = await self.blobs.old(age_s)
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
        """Finish what is being written, and let another process have the database."""
        await self.database.close()
        self._claim.close()
