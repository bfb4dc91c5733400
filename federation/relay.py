"""The two ways messages leave and reach a participant: an aggregator has its `Hub` in the house (`federation.local`), a member
dials out and has an outbox (`federation.uplink`). A `Node` works over either.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from sqlalchemy import Connection

from federation import journal
from federation.blobs import BlobStore
from federation.clock import Clock
from federation.database import Database
from federation.journal import Stored
from federation.mailbox import Delivery, Parcel
from federation.metrics import Meter
from federation.participants import Participants
from federation.presence import Presence
from trust.blob import Manifest


@dataclass(slots=True)
class Commit:
    """All that one step of a participant changes, durable as a whole or not at all."""

    parcels: list[Parcel] = field(default_factory=list)
    sequences: list[tuple[str, int]] = field(default_factory=list)
    taken: list[tuple[str, str]] = field(default_factory=list)
    """Sender, and the state of its replay guard."""
    cursors: list[int] = field(default_factory=list)
    """Deliveries that are handled by this."""
    answers: list[Stored] = field(default_factory=list)
    spare: list[str] = field(default_factory=list)
    """Blobs made for this, which nothing may name in the end."""
    read: list[str] = field(default_factory=list)
    """Blobs of the messages that are handled by this."""
    forgotten: list[str] = field(default_factory=list)
    """Tasks whose answers nobody will ask for again."""

    def save(self, connection: Connection) -> list[str]:
        """Write the journal's part, after the messages; returns blobs that may have become free."""
        journal.save_sent(connection, self.sequences)
        for sender, state in dict(self.taken).items():
            journal.save_taken(connection, sender, state)
        freed = self.spare + [blob for answer in self.answers for blob in journal.save_answer(connection, answer)]
        return freed + [blob for task in self.forgotten for blob in journal.delete_answers(connection, task)]


class Relay(Protocol):
    """What a `Node` needs of either way."""

    database: Database
    blobs: BlobStore
    participants: Participants
    connected: Presence
    """Set while messages can get out of the house."""
    clock: Clock
    meter: Meter
    floors: dict[str, int]
    """The greatest sequences of ours that others say they have met: below them we are not heard."""

    def require_room(self) -> None:
        """Raises FederationError FF-FED-023 where too much waits already to say something of one's own accord."""
        ...

    @property
    def idle(self) -> bool:
        """Whether what is said now goes out at once."""
        ...

    async def run(self) -> None:
        """Keep things moving until cancelled."""
        ...

    async def commit(self, commit: Commit) -> None:
        """Make it durable; what it says is under way from then on."""
        ...

    async def handed_over(self) -> None:
        """Wait until all that was committed has left the house, if it can leave at all now."""
        ...

    async def receive(self) -> list[Delivery]:
        """The next deliveries, as soon as there are any; what is not committed comes again in a later session."""
        ...

    async def refresh(self) -> None:
        """Learn about new participants, if that can be done now."""
        ...

    async def open(self, blob: str, manifest: Manifest, progress: Callable[[], None]) -> bytearray:
        """The plaintext of a blob that a message named. Raises RefusedError where it is gone, TrustError where it was changed."""
        ...

    async def withdraw(self, message: str) -> None:
        """Take back a message that nobody has acknowledged, if that can be done now."""
        ...

    def hearing(self, member: str, listener: Callable[[], None]) -> AbstractContextManager[None]:
        """Have ``listener`` called while bytes of ``member`` are on their way, as far as can be seen from here."""
        ...

    async def __aenter__(self) -> object:
        """Make ready."""
        ...

    async def __aexit__(self, *error: object) -> None:
        """Finish what is being written, and let go of all that is ours."""
        ...
