"""From what a participant wants to say to what is committed: parameters encoded and sealed once, headers numbered, bodies sealed.

All steps that wait while one commit is under way share the next one. The work on bytes runs in threads.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from federation.context import Message
from federation.journal import Journal, Stored
from federation.mailbox import Parcel
from federation.relay import Commit, Relay
from federation.wire import INLINE_BYTES, MAX_BODY_BYTES, Body, encode
from models.learner import Params
from models.parameters import Buffer, parts
from trust.envelope import Header, seal
from trust.identity import Identity, Peer, TrustStore
from trust.keys import SuiteName
from trust.suite import suite

ALONG = 64
"""So many steps that nobody waits for are committed for their own sake."""

Identities = Mapping[SuiteName, tuple[Identity, TrustStore]]


@dataclass(frozen=True, slots=True)
class Saying:
    """A message to be sealed: parameters as they are, or the body of an answer given before."""

    to: Peer
    task: str
    kind: str
    meta: dict[str, Any]
    params: Params | None = None
    again: Stored | None = None


@dataclass(slots=True)
class Step:
    """What one caller wants committed: something said, something handled, or both; something dropped or forgotten."""

    saying: Saying | None = None
    handled: Message | None = None
    keep: bool = False
    """Keep what is said as the answer to ``handled``."""
    dropped: int | None = None
    """Cursor of a delivery that is not worth handling."""
    forgotten: str | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    committed: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Outgoing:
    """The one place where a node's steps become commits, in the order they were asked for."""

    def __init__(self, identities: Identities, relay: Relay, journal: Journal) -> None:
        self._identities, self._relay, self._journal = identities, relay, journal
        self._waiting: list[Step] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    async def take(self, step: Step) -> str:
        """Commit a step; returns the id of what it said. It is committed even where the caller is cancelled meanwhile."""
        self._waiting.append(step)
        self._idle.clear()
        self._wake.set()
        await step.committed
        return step.id

    def take_along(self, step: Step) -> None:
        """Commit a step together with the next one that somebody waits for, with many like it, or at the latest in `flushed`."""
        self._waiting.append(step)
        if len(self._waiting) >= ALONG:
            self._wake.set()

    async def run(self) -> None:
        """Commit steps until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            steps, self._waiting = self._waiting, []
            try:
                await self._relay.commit(await self._prepare(steps))
            except Exception as error:  # whoever asked is told; the node goes on
                self._settle(steps, error)
            else:
                self._settle(steps, None)
            if not self._wake.is_set():
                self._idle.set()

    async def flushed(self) -> None:
        """Wait until all that was asked for is committed."""
        if self._waiting:
            self._idle.clear()
            self._wake.set()
        await self._idle.wait()

    def _settle(self, steps: list[Step], error: Exception | None) -> None:
        for step in steps:
            if step.committed.done():
                continue
            if error is None:
                step.committed.set_result(None)
            else:
                step.committed.set_exception(error)

    async def _prepare(self, steps: list[Step]) -> Commit:
        commit = Commit(forgotten=[step.forgotten for step in steps if step.forgotten is not None])
        attached = await self._attach([step.saying for step in steps if step.saying is not None])
        commit.spare = [body.blob for body in attached.values() if body.blob is not None]
        letters: list[tuple[Header, Peer, bytes]] = []
        blobs: list[str | None] = []
        for step in steps:
            if step.handled is not None:
                header = step.handled.header
                commit.taken.append((header.sender, self._journal.take(header)))
                commit.cursors.append(step.handled.cursor)
                commit.read += step.handled.blobs
            if step.dropped is not None:
                commit.cursors.append(step.dropped)
            if step.saying is None:
                continue
            saying = step.saying
            if saying.again is not None:
                content, blob = saying.again.content, saying.again.blob
            else:
                content, blob = await self._body(saying, attached.get(_key(saying), Body({})))
            letters.append((self._header(step.id, saying), saying.to, content))
            blobs.append(blob)
            if step.keep and step.handled is not None and step.handled.request is not None:
                asked = step.handled.header
                answer = Stored(asked.task, asked.sender, asked.kind, step.handled.request, content, blob)
                self._journal.store(answer)
                commit.answers.append(answer)
        commit.sequences = [(header.recipient, header.sequence) for header, _, _ in letters]
        sealed = await asyncio.to_thread(self._seal, letters) if letters else []
        commit.parcels = [Parcel(one, blob) for one, blob in zip(sealed, blobs, strict=True)]
        return commit

    async def _body(self, saying: Saying, attachment: Body) -> tuple[bytes, str | None]:
        """The body, and the blob it names. One that is too large for a message goes into a blob, with all that belongs to it."""
        content = encode(replace(attachment, meta=saying.meta))
        if len(content) <= MAX_BODY_BYTES:
            return content, attachment.blob
        inner = encode(Body(saying.meta, inline=b"" if saying.params is not None else None))
        tensors = parts(saying.params) if saying.params is not None else []
        outer = await self._in_blob(saying, [inner, *tensors], Body({}, enclosed=True))
        return encode(outer), outer.blob

    async def _attach(self, sayings: list[Saying]) -> dict[tuple[int, SuiteName], Body]:
        """Each object of parameters sealed once for each suite; large ones are read where they lie and never copied."""
        attached: dict[tuple[int, SuiteName], Body] = {}
        for saying in sayings:
            if saying.params is None or _key(saying) in attached:
                continue
            content = parts(saying.params)
            if sum(memoryview(part).nbytes for part in content) <= INLINE_BYTES:
                attached[_key(saying)] = Body({}, inline=b"".join(content))
            else:
                attached[_key(saying)] = await self._in_blob(saying, content, Body({}))
        return attached

    async def _in_blob(self, saying: Saying, content: Sequence[Buffer], body: Body) -> Body:
        """``body``, naming a new blob that holds ``content``."""
        algorithms = saying.to.suite
        owner = self._identities[algorithms][0].peer.name
        blob, manifest = await asyncio.to_thread(self._relay.blobs.seal, owner, suite(algorithms), content)
        return replace(body, blob=blob, manifest=manifest)

    def _header(self, message: str, saying: Saying) -> Header:
        return Header(
            id=message,
            task=saying.task,
            kind=saying.kind,
            sender=self._identities[saying.to.suite][0].peer.name,
            recipient=saying.to.name,
            sequence=self._journal.sequence(saying.to.name, self._relay.floors.get(saying.to.name, 0)),
            time_ms=int(self._relay.clock.now() * 1000),
            suite=saying.to.suite,
        )

    def _seal(self, letters: list[tuple[Header, Peer, bytes]]) -> list[bytes]:
        return [seal(self._identities[to.suite][0], to, header, content) for header, to, content in letters]


def _key(saying: Saying) -> tuple[int, SuiteName]:
    return id(saying.params), saying.to.suite
