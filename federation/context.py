"""One participant's part in one task: what it says, what it is told. Programs are written against this and nothing below it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from federation.errors import FederationError
from federation.wire import Body, decode
from models.learner import Params
from models.parameters import from_bytes
from trust.envelope import Header

MAX_ENCLOSED_BYTES = 64 << 20
"""Of a message whose control data is so large that it travels in a blob."""

if TYPE_CHECKING:
    from federation.node import Node


class Message:
    """A message that was opened and checked. Call `done` when what it asked for is committed; until then it may come again."""

    def __init__(self, node: Node, cursor: int, header: Header, body: Body) -> None:
        self.header, self.meta = header, body.meta
        self.cursor = cursor
        self.settled = False
        self._node, self._body = node, body
        self.blobs: list[str] = [] if body.blob is None else [body.blob]
        """What it named, to be let go of when it is handled."""

    async def unwrap(self) -> None:
        """Fetch the inside of a message that came in a blob as a whole. Raises what `params` raises, FF-FED-024 for a huge one."""
        body = self._body
        if not body.enclosed or body.blob is None or body.manifest is None:
            return
        if body.manifest.size > MAX_ENCLOSED_BYTES:
            raise _too_much(self.header.sender, body.manifest.size, MAX_ENCLOSED_BYTES)
        self._body = decode(await self._node.relay.open(body.blob, body.manifest, lambda: None))
        self.meta = self._body.meta

    @property
    def request(self) -> str | None:
        """Which request this is, or answers."""
        request = self.meta.get("request")
        return request if isinstance(request, str) else None

    async def params(self, max_bytes: int | None = None, progress: Callable[[], None] = lambda: None) -> Params | None:
        """The parameters sent with it, or None. Fetches and opens them anew at every call; ``progress`` is called as bytes come.

        Raises FederationError FF-FED-024 for more than ``max_bytes``, FF-FED-013 where the sender took them back, TrustError for
        bytes that were changed, ModelError for ones that are no parameters.
        """
        body = self._body
        size = body.manifest.size if body.manifest is not None else len(memoryview(body.inline or b""))
        if max_bytes is not None and size > max_bytes:
            raise _too_much(self.header.sender, size, max_bytes)
        if body.inline is not None:
            return from_bytes(body.inline)
        if body.blob is None or body.manifest is None:
            return None
        return from_bytes(await self._node.relay.open(body.blob, body.manifest, progress))

    async def done(self) -> None:
        """It is handled: it will not come again. Durable when this returns."""
        await self._node.done(self)

    def done_soon(self) -> None:
        """`done` without waiting for the disk."""
        self._node.spawn(self.done())

    def done_along(self) -> None:
        """`done` in the next commit that is made anyway, for answers: after a crash before it, one asks again."""
        self._node.done_along(self)


class Context:
    """The messages of one task, whose kinds have no dot. Made by `Node.context`."""

    def __init__(self, node: Node, task: str) -> None:
        self.task = task
        self.name = node.name
        self._node = node
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()  # bounded by what the node holds unhandled
        self._listeners: dict[tuple[str, str], asyncio.Queue[Message]] = {}

    async def send(self, to: str, kind: str, meta: dict[str, Any], params: Params | None = None) -> str:
        """Say something to one participant; durable when this returns. Returns the message's id.

        Sends of one turn of the event loop share a commit, and those with the same ``params`` object share one sealed blob.
        Raises FederationError FF-FED-010 where nobody bears that name.
        """
        return await self._node.send(to, kind, meta, task=self.task, params=params)

    async def broadcast(
        self, members: Sequence[str], kind: str, meta: dict[str, Any], params: Params | None = None
    ) -> None:
        """Say the same to several; the parameters are sealed once."""
        async with asyncio.TaskGroup() as sending:
            for member in members:
                sending.create_task(self.send(member, kind, meta, params))

    async def answer(
        self, message: Message, meta: dict[str, Any], params: Params | None = None, *, keep: bool = True
    ) -> None:
        """Answer a request, and be done with it, in one commit. Asked again, the same answer is given again, if it is to be kept."""
        await self._node.answer(message, meta, params, keep=keep)

    async def receive(self) -> Message:
        """The next message that is no answer to a request under way."""
        return await self._inbox.get()

    @contextmanager
    def listening(self, sender: str, request: str) -> Iterator[asyncio.Queue[Message]]:
        """Inside, what ``sender`` says about ``request`` comes out of this queue."""
        key = (sender, request)
        if key in self._listeners:
            raise RuntimeError(f"{sender} is asked {request} twice at a time")
        self._listeners[key] = asyncio.Queue()
        try:
            yield self._listeners[key]
        finally:
            left = self._listeners.pop(key)
            while not left.empty():
                left.get_nowait().done_soon()

    @property
    def idle(self) -> bool:
        """Whether what is said now goes out at once, rather than wait behind something."""
        return self._node.relay.idle

    def hearing(self, member: str, listener: Callable[[], None]) -> AbstractContextManager[None]:
        """Inside, ``listener`` is called while bytes of ``member`` are on their way."""
        return self._node.relay.hearing(member, listener)

    async def digest(self, params: Params) -> str:
        """Which parameters these are; computed once for the object given last."""
        return await self._node.digest(params)

    def abandon(self, to: str, request: str, message: str) -> None:
        """Nobody waits for this answer any more: take the request back, and tell who may be at work on it."""

        async def tell() -> None:
            await self._node.relay.withdraw(message)
            await self.send(to, "cancel", {"request": request})

        self._node.spawn(tell())

    def spawn(self, work: Awaitable[object]) -> None:
        """Have something done that nobody waits for; the node owns it."""
        self._node.spawn(work)

    async def close(self) -> None:
        """The task is over for this participant: what it would answer again is forgotten, what still comes is dropped."""
        await self._node.forget(self.task)

    def accept(self, message: Message) -> None:
        """Called by the node for each message of the task."""
        queue = self._listeners.get((message.header.sender, message.request or ""))
        if queue is not None:
            queue.put_nowait(message)
        elif message.header.kind in ("reply", "progress"):
            message.done_soon()  # nobody waits for it any more
        else:
            self._inbox.put_nowait(message)


def _too_much(sender: str, size: int, limit: int) -> FederationError:
    return FederationError(
        "FF-FED-024",
        f"{sender} sent {size} bytes, at most {limit} were expected",
        hint="it runs another task or version; check that participant",
    )
