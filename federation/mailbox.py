"""Sealed messages on their way: durable when accepted, in order for each recipient, gone when acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, func, select

from federation import tables
from federation.blobs import BlobStore
from federation.database import Database
from federation.errors import RefusedError
from trust.envelope import peek

CAPACITY = 10_000
"""Messages that may wait for one recipient."""
BATCH = 64
"""Messages handed out at a time."""
BATCH_BYTES = 1 << 20
"""No further message is added to a batch of this size, so that it passes where large bodies do not."""

_messages = tables.messages


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message in a mailbox: its place there, and the sealed bytes."""

    cursor: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Parcel:
    """A sealed message, and the blob that goes with it."""

    sealed: bytes
    blob: str | None = None


class Mailbox:
    """The mailboxes of all participants in one database, and the blobs that waiting messages name.

    A blob is freed with the last message that names it.
    """

    def __init__(self, database: Database, blobs: BlobStore, capacity: int = CAPACITY) -> None:
        self._database, self._blobs, self._capacity = database, blobs, capacity
        self._signals: dict[str, asyncio.Event] = {}
        self._read_up_to: dict[str, int] = {}  # there is nothing behind this cursor: no need to look

    async def put(self, batch: Sequence[Parcel], also: Callable[[Connection], Iterable[str]] = lambda _: ()) -> int:
        """Take in messages; all are durable when this returns, or none. One that is here already (by id) is left as it is.

        ``also`` is done in the same commit, and returns blobs that may have become free by it. Returns how many were new.
        Raises RefusedError FF-FED-014 where a mailbox is full, TrustError for an unreadable message.
        """
        rows: list[dict[str, object]] = []
        for parcel in batch:
            header = peek(parcel.sealed)
            who = {"id": header.id, "sender": header.sender, "recipient": header.recipient}
            rows.append({**who, "sealed": parcel.sealed, "blob": parcel.blob})

        def work(connection: Connection) -> tuple[int, list[str]]:
            added = self._insert(connection, rows)
            return added, tables.unnamed(connection, set(also(connection)))

        added, freed = await self._database.write(work)
        await self._blobs.drop(freed)
        for recipient in {str(row["recipient"]) for row in rows}:
            self._read_up_to.pop(recipient, None)
            if signal := self._signals.pop(recipient, None):
                signal.set()
        return added

    async def fetch(self, recipient: str, after: int = 0, limit: int = BATCH) -> list[Delivery]:
        """The first messages for ``recipient`` behind the cursor ``after``, in the order they came."""
        found, _ = await self._look(recipient, after, limit)
        return found

    async def wait(self, recipient: str, after: int, seconds: float, limit: int = BATCH) -> list[Delivery]:
        """`fetch`, waiting for ``seconds`` until there is something; woken by `put`, never by a timer."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    signal = self._signals.setdefault(recipient, asyncio.Event())  # before the look, so none is missed
                    if after < self._read_up_to.get(recipient, after + 1):
                        found, all_ = await self._look(recipient, after, limit)
                        if all_ and self._signals.get(recipient) is signal:
                            self._read_up_to[recipient] = found[-1].cursor if found else after
                        if found:
                            return found
                    await signal.wait()
        except TimeoutError:
            return []

    async def ack(self, recipient: str, cursors: Collection[int]) -> None:
        """Forget these messages of ``recipient``, and blobs nobody waits for any more; unknown cursors do nothing."""
        await self.put((), lambda connection: remove(connection, recipient, cursors))

    async def withdraw(self, sender: str, ids: Collection[str]) -> None:
        """Forget messages of ``sender`` that it wants no answer to any more, read or not."""
        mine = (_messages.c.sender == sender) & _messages.c.id.in_(ids)
        await self.put((), lambda connection: _remove(connection, mine))

    async def may_read(self, reader: str, blob: str) -> bool:
        """Whether a message waiting for ``reader``, or sent by it, names ``blob``."""
        mine = (_messages.c.recipient == reader) | (_messages.c.sender == reader)
        query = select(_messages.c.cursor).where(_messages.c.blob == blob, mine).limit(1)
        return await self._database.read(lambda connection: connection.execute(query).first() is not None)

    async def _look(self, recipient: str, after: int, limit: int) -> tuple[list[Delivery], bool]:
        """What `fetch` gives, and whether that is all there is."""

        def work(connection: Connection) -> tuple[list[Delivery], bool]:
            query = (
                select(_messages.c.cursor, _messages.c.sealed)
                .where(_messages.c.recipient == recipient, _messages.c.cursor > after)
                .order_by(_messages.c.cursor)
                .limit(limit)
            )
            found: list[Delivery] = []
            size = 0
            for cursor, sealed in connection.execute(query):
                size += len(sealed)
                if found and size > BATCH_BYTES:
                    return found, False
                found.append(Delivery(cursor, sealed))
            return found, len(found) < limit

        return await self._database.read(work)

    def _insert(self, connection: Connection, rows: list[dict[str, object]]) -> int:
        if not rows:
            return 0
        waiting = (
            select(_messages.c.recipient, func.count())
            .where(_messages.c.recipient.in_({row["recipient"] for row in rows}))
            .group_by(_messages.c.recipient)
        )
        for recipient, count in connection.execute(waiting):
            if count >= self._capacity:
                raise RefusedError(
                    "FF-FED-014",
                    f'{count} messages wait for "{recipient}", more are not taken',
                    hint=f'check that "{recipient}" runs and connects; it takes its messages when it is back',
                    status=507,
                )
        known = tables.dialect_insert(connection, _messages).on_conflict_do_nothing(index_elements=["id"])
        return len(connection.scalars(known.returning(_messages.c.cursor), rows).all())


def remove(connection: Connection, recipient: str, cursors: Collection[int]) -> list[str]:
    """Delete these messages of ``recipient``; returns the blobs they named."""
    return _remove(connection, (_messages.c.recipient == recipient) & _messages.c.cursor.in_(cursors))


def _remove(connection: Connection, which: ColumnElement[bool]) -> list[str]:
    gone = delete(_messages).where(which).returning(_messages.c.blob)
    return [blob for blob in connection.scalars(gone) if blob is not None]
