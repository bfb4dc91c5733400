"""What a member has yet to hand over: durable, in order, delivered at least once, over crashes of either side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, update

from federation import tables
from federation.blobs import BlobStore
from federation.database import Database
from federation.errors import FederationError
from federation.mailbox import Parcel

CAPACITY = 10_000

_outbox = tables.outbox


@dataclass(frozen=True, slots=True)
class Entry:
    """One message that waits for its turn."""

    place: int
    parcel: Parcel


class Outbox:
    """Rows of ``outbox.db``, in the order they were put. A row is deleted when the aggregator has accepted it."""

    def __init__(self, database: Database, blobs: BlobStore, capacity: int = CAPACITY) -> None:
        self._database, self._blobs, self._capacity = database, blobs, capacity

    def put(self, connection: Connection, parcels: Sequence[Parcel]) -> None:
        """Queue messages as part of a transaction. Raises FederationError FF-FED-023 where too many wait."""
        if not parcels:
            return
        waiting = connection.scalar(select(func.count()).where(_outbox.c.refusal.is_(None))) or 0
        if waiting + len(parcels) > self._capacity:
            raise FederationError(
                "FF-FED-023",
                f"{waiting} messages wait for the aggregator, more are not taken",
                hint="the aggregator has been unreachable for long: check `url` in [coordinator] and the network",
            )
        connection.execute(insert(_outbox), [{"sealed": one.sealed, "blob": one.blob} for one in parcels])

    async def first(self) -> Entry | None:
        """The message whose turn it is."""
        query = (
            select(_outbox.c.place, _outbox.c.sealed, _outbox.c.blob)
            .where(_outbox.c.refusal.is_(None))
            .order_by(_outbox.c.place)
            .limit(1)
        )
        row = await self._database.read(lambda connection: connection.execute(query).first())
        return Entry(row.place, Parcel(row.sealed, row.blob)) if row is not None else None

    async def delivered(self, entry: Entry) -> None:
        """It has arrived: forget it, and its blob unless an answer is kept with it."""

        def work(connection: Connection) -> list[str]:
            connection.execute(delete(_outbox).where(_outbox.c.place == entry.place))
            return tables.unnamed(connection, {entry.parcel.blob} if entry.parcel.blob else ())

        await self._blobs.drop(await self._database.write(work))

    async def refuse(self, entry: Entry, reason: str) -> None:
        """It will never be accepted: keep it aside with the reason, and go on with the next."""
        await self._database.write(
            lambda connection: connection.execute(
                update(_outbox).where(_outbox.c.place == entry.place).values(refusal=reason)
            )
        )
