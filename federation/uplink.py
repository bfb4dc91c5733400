"""A member's way to its aggregator: a session that is opened again whenever it breaks, a long poll, and the outbox behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import structlog
from sqlalchemy import Connection

from federation import schema, tables
from federation.backoff import Backoff
from federation.blobs import BlobStore
from federation.client import Link, Session
from federation.clock import Clock
from federation.database import Database, claim, connect
from federation.errors import FederationError, RefusedError, UnreachableError
from federation.inbox import Inbox
from federation.journal import newest_met
from federation.mailbox import Delivery, Parcel
from federation.outbox import Entry, Outbox
from federation.participants import Participants
from federation.presence import Presence
from federation.relay import Commit
from federation.route import OutboxLimits
from trust.blob import Manifest
from trust.errors import TrustError

log = structlog.get_logger()


ACKS = 200
"""Acknowledgements that go with one message, in a header that every proxy takes."""


class Uplink:
    """`federation.relay.Relay` over a `Link`. State lives in ``folder``: ``outbox.db``, ``outbox/`` for blobs, ``inbox/`` for
    those that are being fetched.

    Raises FederationError FF-FED-042 where another process uses the folder.
    """

    def __init__(self, link: Link, folder: Path, limits: OutboxLimits) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        engine = connect(f"sqlite:///{folder / 'outbox.db'}")
        self._claim = claim(engine)
        schema.make(engine)
        self.database = Database(engine)
        self.blobs = BlobStore(folder / "outbox")
        self.participants = Participants(self.database)
        self.connected = Presence()
        self.clock, self.meter, self.floors = Clock(), link.meter, dict[str, int]()
        self._link = link
        self._inbox = Inbox(folder / "inbox", link)
        self._outbox = Outbox(self.database, self.blobs, limits)
        self.meter.outbox, self.meter.outbox_bytes = self._outbox.depth, self._outbox.bytes
        self._work, self._empty = asyncio.Event(), asyncio.Event()
        self._acks: list[int] = []
        self._after = 0
        self._backoff = Backoff()
        self._trouble = ""

    @property
    def idle(self) -> bool:
        """The aggregator is there, and nothing waits for it."""
        return self.connected.is_set() and not self._outbox.depth.depth

    def require_room(self) -> None:
        """In the outbox."""
        self._outbox.require_room()

    async def run(self) -> None:
        """Hand over what is in the outbox, one after another, for as long as this runs."""
        backoff, resume = Backoff(), True
        while True:
            await self.connected.wait()
            entry = await self._outbox.first()
            if entry is None and not self._acks:
                self._empty.set()
                await self._work.wait()
                self._work.clear()
                resume = False
                continue
            try:
                await self._deliver(entry, resume)
                resume = False
                backoff.reset()
            except (RefusedError, UnreachableError) as error:
                self._note(error)  # whether the session is lost, the poll finds out
                resume = True
                await backoff.pause()

    async def commit(self, commit: Commit) -> None:
        """Into the outbox, in one transaction with the journal; acknowledgements travel with the next message."""

        def work(connection: Connection) -> list[str]:
            self._outbox.put(connection, commit.parcels)
            return tables.unnamed(connection, set(commit.save(connection)))

        await self.blobs.drop(await self.database.write(work))
        await self._inbox.drop(commit.read)
        self._outbox.added(commit.parcels)
        self._acks += commit.cursors
        self._empty.clear()
        self._work.set()

    async def handed_over(self) -> None:
        """Wait until the outbox is empty, if there is anybody to hand it to."""
        if self.connected.is_set():
            await self._empty.wait()

    async def receive(self) -> list[Delivery]:
        """By long poll; the session is opened first where there is none."""
        while True:
            try:
                with self.meter.polling.work("ask the aggregator for messages"):
                    if not self.connected.is_set():
                        await self._open_session()
                    if found := await self._link.poll(self._after):
                        self._after = found[-1].cursor
                        return found
            except (FederationError, TrustError) as error:
                self._lost(error)
                await self._backoff.pause()

    async def refresh(self) -> None:
        """Ask the aggregator again who takes part."""
        try:
            await self._meet()
        except (FederationError, TrustError) as error:
            self._lost(error)

    async def open(self, blob: str, manifest: Manifest, progress: Callable[[], None]) -> bytearray:
        """Downloaded and opened chunk by chunk, resumed where the line breaks, or an earlier process ended."""
        return await self._inbox.open(blob, manifest, progress)

    async def withdraw(self, message: str) -> None:
        """One attempt."""
        try:
            await self._link.withdraw(message)
        except FederationError as error:
            log.info("message not withdrawn", reason=str(error))

    def hearing(self, member: str, listener: Callable[[], None]) -> AbstractContextManager[None]:
        """A member sees only its own bytes."""
        return nullcontext()

    async def __aenter__(self) -> Uplink:
        await self._link.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._link.__aexit__(*error)
        await self.database.close()
        self.database.engine.dispose()
        self._claim.close()
        self.meter.up = dict.fromkeys(self.meter.up, False)

    async def _open_session(self) -> None:
        """What was delivered in an earlier session comes again, so acknowledgements of then are dropped."""
        session = await self._meet()
        await self._inbox.sweep()
        self._after, self._acks = 0, []
        self._backoff.reset()
        self.connected.set()
        self.meter.sessions += 1
        self.meter.up[session.aggregator.name] = True
        log.info("connected to aggregator", aggregator=session.aggregator.name, after_trouble=bool(self._trouble))
        self._trouble = ""

    async def _meet(self) -> Session:
        """Say hello, and learn who takes part, what time it is, and from which sequence on we are heard."""
        session = await self._link.hello(await self.database.read(newest_met))
        for peer in session.participants.values():
            await self.participants.add(peer)
        self.floors[session.aggregator.name] = session.met
        if session.time_s is not None:
            self.clock.learn(session.time_s, session.waited_s)
            self.meter.skew_s = self.clock.skew_s
        return session

    async def _deliver(self, entry: Entry | None, resume: bool) -> None:
        acks = self._acks[:ACKS]
        if entry is None:
            await self._link.ack(acks)
        else:
            try:
                await self._hand_over(entry.parcel, acks, resume)
                await self._outbox.delivered(entry)
            except (RefusedError, FileNotFoundError) as error:
                if isinstance(error, RefusedError) and error.status == 403:  # whoever refuses us may admit us later
                    raise
                log.error("message cannot be delivered", reason=str(error))
                await self._outbox.refuse(entry, str(error))
                return
        self._acks = [cursor for cursor in self._acks if cursor not in acks]

    async def _hand_over(self, parcel: Parcel, acks: list[int], resume: bool) -> None:
        if parcel.blob is None:
            await self._link.post(parcel.sealed, None, acks)
            return
        try:
            await self._link.upload(self.blobs, parcel.blob, resume=resume)
            await self._link.post(parcel.sealed, (parcel.blob, self.blobs.size(parcel.blob)), acks)
        except RefusedError as error:
            if error.status != 409 or resume:
                raise
            await self._hand_over(parcel, acks, resume=True)  # it stands elsewhere than we thought

    def _lost(self, error: FederationError | TrustError) -> None:
        self.connected.clear()
        self.meter.up = dict.fromkeys(self.meter.up, False)
        self._note(error)

    def _note(self, error: FederationError | TrustError) -> None:
        """The first failure is logged, repeats of it are not."""
        if self._trouble != error.message:
            log.warning("aggregator not reached", reason=str(error))
            self._trouble = error.message
