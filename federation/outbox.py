"""What a member has yet to hand over: durable, in order, delivered at least once, over crashes of either side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, update

from common.metrics import Buffer
from federation import tables
from federation.blobs import BlobStore
from federation.database import Database
from federation.errors import FederationError
from federation.mailbox import Parcel
from federation.route import OutboxLimits

_outbox = tables.outbox
_waiting = _outbox.c.refusal.is_(None)


@dataclass(frozen=True, slots=True)
class Entry:
    """One message that waits for its turn."""

    place: int
    parcel: Parcel


class Outbox:
    """Rows of ``outbox.db``, in the order they were put. A row is deleted when the aggregator has accepted it.

    When it is full, whoever wants to say something of his own is told so (`require_room`) and keeps it; answers to what was asked are
    always taken: there are no more of them than requests.
    """

    def __init__(self, database: Database, blobs: BlobStore, limits: OutboxLimits) -> None:
        self._database, self._blobs = database, blobs
        with database.engine.connect() as connection:
            kept = connection.execute(select(_outbox.c.blob, func.length(_outbox.c.sealed)).where(_waiting)).all()
            named = {row.blob for row in connection.execute(select(_outbox.c.blob))}
            named |= set(connection.scalars(select(tables.answers.c.blob)))
        self.depth = Buffer("outbox", len(kept), limits.messages, 0, "messages")
        self.bytes = Buffer("outbox_bytes", sum(self._size(*row) for row in kept), limits.bytes, 0, "bytes")
        blobs.keep_only(named)

    def require_room(self) -> None:
        """Raises FederationError FF-FED-023 where too much waits already."""
        for buffer in (self.depth, self.bytes):
            if buffer.depth >= buffer.limit:
                buffer.dropped += 1
                raise FederationError(
                    "FF-FED-023",
                    f"{self.depth.depth} messages ({self.bytes.depth} bytes) wait for the aggregator, more are not taken",
                    hint="the aggregator has been unreachable for long: check `url` in [coordinator] and the network",
                )

    def put(self, connection: Connection, parcels: Sequence[Parcel]) -> None:
        """Queue messages as part of a transaction; once it is committed, `added` must be told."""
        if parcels:
            connection.execute(insert(_outbox), [{"sealed": one.sealed, "blob": one.blob} for one in parcels])

    def added(self, parcels: Sequence[Parcel]) -> None:
        """These were put, and are committed."""
        self.depth.depth += len(parcels)
        self.bytes.depth += sum(self._size(one.blob, len(one.sealed)) for one in parcels)

    async def first(self) -> Entry | None:
        """The message whose turn it is."""
        query = (
            select(_outbox.c.place, _outbox.c.sealed, _outbox.c.blob).where(_waiting).order_by(_outbox.c.place).limit(1)
        )
        row = await self._database.read(lambda connection: connection.execute(query).first())
        return Entry(row.place, Parcel(row.sealed, row.blob)) if row is not None else None

    async def delivered(self, entry: Entry) -> None:
        """It has arrived: forget it, and its blob unless an answer is kept with it."""

        def work(connection: Connection) -> list[str]:
            connection.execute(delete(_outbox).where(_outbox.c.place == entry.place))
            return tables.unnamed(connection, {entry.parcel.blob} if entry.parcel.blob else ())

        self._removed(entry)
        await self._blobs.drop(await self._database.write(work))

    async def refuse(self, entry: Entry, reason: str) -> None:
        """It will never be accepted: keep it aside with the reason, and go on with the next."""
        self._removed(entry)
        await self._database.write(
            lambda connection: connection.execute(
                update(_outbox).where(_outbox.c.place == entry.place).values(refusal=reason)
            )
        )

    def _removed(self, entry: Entry) -> None:
        self.depth.depth -= 1
        self.bytes.depth -= self._size(entry.parcel.blob, len(entry.parcel.sealed))

    def _size(self, blob: str | None, sealed: int) -> int:
        return sealed + (self._blobs.size(blob) if blob is not None else 0)
