"""One participant's end-point: opens, checks and sorts what comes, and says what programs want said, whatever way it travels.

Every message is handled once: a repetition is acknowledged and dropped, a request that was answered is answered again from the
journal. What is not handled when the process dies comes again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import structlog

from common.errors import FedfabError
from federation.client import Link
from federation.context import Context, Message
from federation.errors import FederationError
from federation.hub import Hub
from federation.journal import Journal
from federation.local import LocalRelay
from federation.mailbox import Delivery
from federation.metrics import Meter
from federation.outgoing import Outgoing, Saying, Step
from federation.relay import Relay
from federation.route import OutboxLimits, Route
from federation.uplink import Uplink
from federation.wire import decode
from models.learner import Params
from trust.envelope import peek, unseal
from trust.errors import TrustError
from trust.identity import Identity, Peer, TrustStore

log = structlog.get_logger()

UNHANDLED = 1024
"""Messages held at a time; the others wait in the mailbox."""
LEAVING_S = 5.0
"""For what is still to be said when the participant leaves."""
EARLY = 64
"""Messages held for each task that nobody has opened yet; more stay in the mailbox until the next session."""


class Node:
    """Made by `member` or `aggregator`, used inside ``async with``."""

    def __init__(self, identities: Sequence[tuple[Identity, TrustStore]], relay: Relay) -> None:
        self.name = identities[0][0].peer.name
        self.relay = relay
        self.participants = relay.participants
        self.connected = relay.connected
        self._identities = {identity.peer.suite: (identity, trust) for identity, trust in identities}
        self._journal = Journal(relay.database)
        self._outgoing = Outgoing(self._identities, relay, self._journal)
        self._stack = AsyncExitStack()
        self._loops: list[asyncio.Task[None]] = []
        self._spawned: set[asyncio.Task[None]] = set()
        self._contexts: dict[str, Context] = {}
        self._early: dict[str, list[Message]] = {}
        self._closed: set[str] = set()
        self._unclaimed: asyncio.Queue[Message] = asyncio.Queue()  # bounded by UNHANDLED
        self._unhandled: dict[str, Message] = {}
        self._handled = asyncio.Event()
        self._digest: tuple[Params, asyncio.Task[str]] | None = None

    @classmethod
    def member(
        cls,
        identity: Identity,
        trust: TrustStore,
        url: str,
        folder: Path,
        *,
        route: Route | None = None,
        outbox: OutboxLimits | None = None,
        meter: Meter | None = None,
    ) -> Node:
        """A participant that dials out to the aggregator at ``url``; what it must not lose lies in ``folder``.

        It starts whether or not the aggregator can be reached. ``meter`` counts on where an earlier node's stopped. Raises
        FederationError FF-FED-021 for an address that is not https, FF-FED-042 where another process uses ``folder``.
        """
        uplink = Uplink(
            Link(identity, trust, url, route or Route(), meter or Meter()), folder, outbox or OutboxLimits()
        )
        return cls([(identity, trust)], uplink)

    @classmethod
    def aggregator(cls, identities: Sequence[tuple[Identity, TrustStore]], hub: Hub) -> Node:
        """The participant in whose process the hub is, under one name with an identity in each suite it offers."""
        return cls(identities, LocalRelay(hub, identities[0][0].peer.name))

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.relay)
        self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._loops = [
            self._tasks.create_task(loop) for loop in (self.relay.run(), self._outgoing.run(), self._receive())
        ]
        return self

    async def __aexit__(self, *error: Any) -> bool | None:
        if not any(loop.done() for loop in self._loops):  # else one of them failed, and nothing gets out any more
            with suppress(TimeoutError):
                async with asyncio.timeout(LEAVING_S):
                    await self._leave()
        for task in (*self._loops, *self._spawned):
            task.cancel()
        return await self._stack.__aexit__(*error)

    async def _leave(self) -> None:
        """See to it that what was begun is committed, and what was committed is handed over."""
        if self._spawned:
            await asyncio.wait(self._spawned)
        await self._outgoing.flushed()
        await self.relay.handed_over()

    def context(self, task: str) -> Context:
        """This participant's part in ``task``; the same object until it is closed."""
        if task not in self._contexts:
            self._closed.discard(task)
            self._contexts[task] = Context(self, task)
            for message in self._early.pop(task, []):
                self._contexts[task].accept(message)
        return self._contexts[task]

    async def unclaimed(self) -> AsyncIterator[Message]:
        """Messages for the participant as a whole: those whose kind has a dot (``task.start``), as they come. For one reader."""
        while True:
            yield await self._unclaimed.get()

    async def send(
        self, to: str, kind: str, meta: dict[str, Any], *, task: str = "", params: Params | None = None
    ) -> str:
        """Say something to ``to``; durable when this returns. Returns the message's id.

        Raises FederationError FF-FED-010 where nobody bears that name, FF-FED-023 where too much waits already, TrustError where its
        certificate does not hold any more.
        """
        self.relay.require_room()
        return await self._outgoing.take(Step(Saying(self._peer(to), task, kind, meta, params)))

    async def answer(self, message: Message, meta: dict[str, Any], params: Params | None, *, keep: bool) -> None:
        """See `Context.answer`."""
        asked = message.header
        saying = Saying(self._peer(asked.sender), asked.task, "reply", {"request": message.request} | meta, params)
        await self._settle(message, Step(saying, keep=keep))

    async def done(self, message: Message) -> None:
        """See `Message.done`."""
        await self._settle(message, Step())

    def done_along(self, message: Message) -> None:
        """See `Message.done_along`."""
        if not message.settled:
            message.settled = True
            step = Step(handled=message)
            step.committed.add_done_callback(lambda _: self._release(message))
            self._outgoing.take_along(step)

    async def forget(self, task: str) -> None:
        """See `Context.close`."""
        self._contexts.pop(task, None)
        self._closed.add(task)
        mine = [one for one in self._unhandled.values() if one.header.task == task and "." not in one.header.kind]
        again = [one for one in mine if self._comes_behind_a_word(one)]
        if again:
            self._early[task] = again
        for message in mine:
            if message not in again:
                await self.done(message)
        self._journal.forget(task)
        await self._outgoing.take(Step(forgotten=task))

    async def digest(self, params: Params) -> str:
        """SHA-256 of the parameters; computed once for the object given last."""
        if self._digest is None or self._digest[0] is not params:
            self._digest = params, self._tasks.create_task(asyncio.to_thread(_digest, params))
        return await asyncio.shield(self._digest[1])

    def spawn(self, work: Awaitable[object]) -> None:
        """Have something done that nobody waits for. A failure is logged."""

        async def guarded() -> None:
            try:
                await work
            except FedfabError as error:
                log.warning("left undone", reason=str(error))

        task = self._tasks.create_task(guarded())
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)

    async def _receive(self) -> None:
        while True:
            while len(self._unhandled) >= UNHANDLED:
                self._handled.clear()
                await self._handled.wait()
            deliveries = await self.relay.receive()
            senders = {peek(delivery.sealed).sender for delivery in deliveries}
            if any(sender not in self.participants for sender in senders):
                await self.relay.refresh()
            for opened in await asyncio.to_thread(lambda batch: list(map(self._open, batch)), deliveries):
                if isinstance(opened, Message):
                    await self._sort(opened)
                else:
                    self._drop(opened)

    def _open(self, delivery: Delivery) -> Message | int:
        """A line in the log, and only the cursor, for what is not a message to us from the one it names."""
        header = peek(delivery.sealed)
        try:
            if header.suite not in self._identities:
                raise self._other_suite(header.sender, header.suite)
            identity, trust = self._identities[header.suite]
            header, body = unseal(identity, self.participants.peer(header.sender, trust), delivery.sealed)
            return Message(self, delivery.cursor, header, decode(body))
        except (FederationError, TrustError) as error:
            log.error("message dropped", sender=header.sender, kind=header.kind, reason=str(error))
            return delivery.cursor

    async def _sort(self, message: Message) -> None:
        header = message.header
        if header.id in self._unhandled:  # it comes again in a new session, under another cursor
            self._unhandled[header.id].cursor = message.cursor
            self.relay.meter.repeated[header.sender] += 1
            return
        try:
            self._journal.meet(header, self.relay.clock.now())
        except TrustError as error:
            log.info("message dropped", sender=header.sender, kind=header.kind, reason=error.message)
            self.relay.meter.repeated[header.sender] += 1
            self._drop(message.cursor)
            return
        self._unhandled[header.id] = message
        try:
            await message.unwrap()
        except (FederationError, TrustError) as error:
            log.error("message dropped", sender=header.sender, kind=header.kind, reason=str(error))
            message.done_soon()
            return
        if "." in header.kind:
            self._unclaimed.put_nowait(message)
        elif stored := self._journal.answered(header.task, header.sender, header.kind, message.request or ""):
            saying = Saying(self._peer(header.sender), header.task, "reply", {}, again=stored)
            self.spawn(self._settle(message, Step(saying)))
        elif header.task in self._contexts:
            self._contexts[header.task].accept(message)
        elif header.task in self._closed and not self._comes_behind_a_word(message):
            message.done_soon()
        else:
            self._keep_early(message)

    def _comes_behind_a_word(self, message: Message) -> bool:
        """Whether its sender has said something of the task as a whole before it that is not handled yet, such as ``task.start``.

        Then it belongs to what that word begins, not to what has been closed.
        """
        header = message.header
        words = (one.header for one in self._unhandled.values() if "." in one.header.kind)
        return any(
            (word.task, word.sender) == (header.task, header.sender) and word.sequence < header.sequence
            for word in words
        )

    def _keep_early(self, message: Message) -> None:
        early = self._early.setdefault(message.header.task, [])
        if len(early) < EARLY:
            early.append(message)
        else:
            del self._unhandled[message.header.id]

    def _drop(self, cursor: int) -> None:
        self.spawn(self._outgoing.take(Step(dropped=cursor)))

    async def _settle(self, message: Message, step: Step) -> None:
        """Commit the last step of a message; a second one for the same message changes nothing."""
        if message.settled:
            return
        message.settled = True
        step.handled = message
        try:
            await self._outgoing.take(step)
        except Exception:  # the disk is full, say: it is as unhandled as before
            message.settled = False
            raise
        self._release(message)

    def _release(self, message: Message) -> None:
        self._unhandled.pop(message.header.id, None)
        self._handled.set()

    def _peer(self, name: str) -> Peer:
        suite = self.participants.suite(name)
        if suite not in self._identities:
            raise self._other_suite(name, suite)
        return self.participants.peer(name, self._identities[suite][1])

    def _other_suite(self, name: str, suite: str) -> FederationError:
        return FederationError(
            "FF-FED-025",
            f'"{name}" uses suite {suite}, this participant only {", ".join(self._identities)}',
            hint="set the same `[trust] suite` on both sides",
        )


def _digest(params: Params) -> str:
    """Over names, shapes and values, in the order of names: nothing is copied."""
    running = hashlib.sha256()
    for name, value in sorted(params.items()):
        running.update(f"{name}{value.shape}".encode())
        running.update(np.ascontiguousarray(value).data)
    return running.hexdigest()
