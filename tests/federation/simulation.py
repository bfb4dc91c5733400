"""A federation in one thread and no time: real nodes, hubs, handlers and calls, over a network and processes that are simulated.

Only TLS and sockets are replaced: `Wire` stands where aiohttp's client session does and calls the server's own handlers. Time jumps to
whatever happens next; work for threads is done at once; a process that is killed writes nothing more, whatever its tasks still try.
"""

from __future__ import annotations

import asyncio
import contextvars
import selectors
import ssl
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self
from unittest import mock

import aiohttp
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict
from yarl import URL

from federation.blobs import BlobStore
from federation.client import Link
from federation.database import Database, connect
from federation.hub import Hub
from federation.metrics import Meter
from federation.node import Node
from federation.route import OutboxLimits, Route
from federation.server import FederationServer
from federation.uplink import Uplink
from trust.identity import Identity, TrustStore

LATENCY_S = 0.01
CALLS = ("POST hello", "POST messages", "GET messages", "POST ack", "HEAD blobs", "PATCH blobs", "GET blobs")
Fault = tuple[str, float]
"""What happens to a call, and a number that says more: how much passes before a cut (of 10), how late it arrives (seconds)."""
_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class Loop(asyncio.SelectorEventLoop):
    """Its clock stands still while anything can be done, and jumps to the next timer when nothing can."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Selector(self))
        self.set_default_executor(Inline())
        self.set_task_factory(_owned)

    def time(self) -> float:
        return self.now

    def step(self, times: int) -> None:
        """Turns of the loop."""
        for _ in range(times):
            self.call_soon(self.stop)
            self.run_forever()

    def spend(self, seconds: float) -> None:
        """Let so much time pass."""
        self.run_until_complete(asyncio.sleep(seconds))


class _Selector(selectors.SelectSelector):
    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing will ever happen any more"
            self._loop.now += timeout
        return ready


class Inline(ThreadPoolExecutor):
    """Does work at once instead of in a thread."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*arguments, **options))
        except Exception as error:
            future.set_exception(error)
        return future


def _owned(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
    task = asyncio.Task(work, loop=loop, **options)
    context = options.get("context")
    owner = context.get(_process) if context is not None else _process.get()
    if owner is not None:
        owner.tasks.add(task)
        task.add_done_callback(owner.tasks.discard)
    return task


class Process:
    """What dies together. ``main`` is run in it; `kill` stops all it does between two turns of the loop."""

    def __init__(self, loop: Loop, main: Callable[[Process], Coroutine[Any, Any, None]]) -> None:
        self._loop = loop
        self.tasks: set[asyncio.Task[Any]] = set()
        self.databases: list[Database] = []
        self.stores: list[BlobStore] = []
        self.claims: list[ExitStack] = []
        self.context = contextvars.copy_context()
        self.context.run(_process.set, self)
        self.main = loop.create_task(main(self), context=self.context)

    def kill(self) -> None:
        """As by SIGKILL."""
        for database in self.databases:
            database._commit = database._read = _dead  # type: ignore[assignment, method-assign]
        for store in self.stores:
            for name in ("_unlink", "seal", "write", "keep"):
                setattr(store, name, _dead)
        while self.tasks:
            waited = list(self.tasks)
            for task in waited:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*waited, return_exceptions=True))
        for database in self.databases:
            database.engine.dispose()
        for claim in self.claims:
            claim.close()


def _dead(*_: object, **__: object) -> Any:
    raise ProcessLookupError("killed")


@dataclass
class Network:
    """Between members and the one aggregator. ``faults`` are those of the next calls of a kind, such as ``POST messages``, in order."""

    server: Process | None = None
    app: web.Application | None = None
    faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    cut_off: set[str] = field(default_factory=set)
    strays: set[asyncio.Task[Any]] = field(default_factory=set)

    async def call(self, caller: Caller, sent: Sent, limit_s: float) -> Answer:
        """One request and its answer, as the network has it. Raises what aiohttp raises."""
        upcoming = self.faults[f"{sent.method} {sent.url.parts[3]}"]
        fault, amount = upcoming.popleft() if upcoming else ("", 0.0)
        await asyncio.sleep(LATENCY_S)
        if fault == "request lost" or caller.name in self.cut_off:
            await asyncio.sleep(1.0)
            raise aiohttp.ClientConnectionError("lost")
        if fault == "late":  # the caller has given up when it arrives
            self._later(amount, caller, sent)
            raise aiohttp.ClientConnectionError("timed out")
        if fault == "repeated":
            self._later(amount, caller, sent)
        if fault == "cut" and sent.body:
            await self.handle(caller, sent.cut_after(int(len(sent.body) * min(amount, 10.0) / 10.0)))
            raise aiohttp.ClientConnectionError("cut")
        try:
            async with asyncio.timeout(limit_s):
                answer = await self.handle(caller, sent)
        except TimeoutError as error:
            raise aiohttp.ServerTimeoutError from error
        await asyncio.sleep(LATENCY_S)
        if fault == "answer lost" or caller.name in self.cut_off:
            raise aiohttp.ClientConnectionError("lost")
        if fault == "cut" and answer.body:
            return answer.cut_after(int(len(answer.body) * min(amount, 10.0) / 10.0))
        return answer

    async def handle(self, caller: Caller, sent: Sent) -> Answer:
        """Arrives at the aggregator, if there is one."""
        server, app = self.server, self.app
        if server is None or app is None:
            raise aiohttp.ClientConnectionError("refused")
        work = asyncio.get_running_loop().create_task(_handled(app, caller, sent), context=server.context.copy())
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if work.cancelled():
                raise aiohttp.ClientConnectionError("the aggregator died") from None
            work.cancel()
            raise

    def _later(self, seconds: float, caller: Caller, sent: Sent) -> None:
        async def arrive() -> None:
            await asyncio.sleep(seconds)
            try:
                await self.handle(caller, sent)
            except aiohttp.ClientError:
                return

        stray = asyncio.get_running_loop().create_task(arrive(), context=contextvars.Context())
        self.strays.add(stray)
        stray.add_done_callback(self.strays.discard)


@dataclass(frozen=True)
class Caller:
    """Whose certificate the connection has."""

    name: str
    certificate: bytes

    def get_extra_info(self, name: str, default: object = None) -> object:
        """As a transport with TLS."""
        if name == "ssl_object":
            return SimpleNamespace(getpeercert=lambda _: ssl.PEM_cert_to_DER_cert(self.certificate.decode()))
        return default


@dataclass(frozen=True)
class Sent:
    method: str
    url: URL
    headers: dict[str, str]
    body: bytes
    whole: bool = True

    def cut_after(self, size: int) -> Sent:
        return Sent(self.method, self.url, self.headers, self.body[:size], whole=False)


@dataclass
class Answer:
    """As much of `aiohttp.ClientResponse` as a link uses."""

    status: int
    headers: CIMultiDict[str]
    body: bytes
    whole: bool = True

    def cut_after(self, size: int) -> Answer:
        return Answer(self.status, self.headers, self.body[:size], whole=False)

    @property
    def content(self) -> Answer:
        return self

    @property
    def content_length(self) -> int:
        return int(self.headers.get("Content-Length", len(self.body)))

    async def read(self) -> bytes:
        if not self.whole:
            raise aiohttp.ClientPayloadError("cut")
        return self.body

    async def iter_any(self) -> AsyncIterator[bytes]:
        if self.body:
            yield self.body
        if not self.whole:
            raise aiohttp.ClientPayloadError("cut")


async def _handled(app: web.Application, caller: Caller, sent: Sent) -> Answer:
    protocol = BaseProtocol(asyncio.get_running_loop())
    protocol.transport = caller  # type: ignore[assignment]
    content = StreamReader(protocol, 1 << 30, loop=asyncio.get_running_loop())
    content.feed_data(sent.body)
    if sent.whole:
        content.feed_eof()
    else:
        # after what did arrive was read
        broken = aiohttp.ClientConnectionResetError("cut")
        asyncio.get_running_loop().call_later(LATENCY_S, content.set_exception, broken)
    written = _Written()
    request = make_mocked_request(
        sent.method, str(sent.url.relative()), sent.headers, app=app, writer=written, transport=caller, payload=content
    )
    match = await app.router.resolve(request)
    match.add_app(app)
    request._match_info = match  # type: ignore[assignment]
    try:
        response = await match.handler(request)
    except (ConnectionError, aiohttp.ClientError):
        return Answer(500, CIMultiDict(), b"")  # nobody reads it: the line broke
    if isinstance(response, web.Response):
        return Answer(response.status, response.headers, bytes(response.body or b""))  # type: ignore[arg-type]
    assert isinstance(response, web.StreamResponse)
    return Answer(response.status, response.headers, bytes(written.body))


class _Written(AbstractStreamWriter):
    def __init__(self) -> None:
        self.body = bytearray()

    async def write(self, chunk: Any) -> None:
        self.body += chunk

    async def write_eof(self, chunk: bytes = b"") -> None:
        self.body += chunk

    async def drain(self) -> None:
        pass

    def enable_compression(self, *_: object, **__: object) -> None:
        pass

    def enable_chunking(self) -> None:
        pass

    async def write_headers(self, *_: object) -> None:
        pass


class Wire:
    """Stands where a link has its `aiohttp.ClientSession`."""

    def __init__(self, network: Network, caller: Caller) -> None:
        self._network, self._caller = network, caller

    @asynccontextmanager
    async def request(self, method: str, url: URL, **options: Any) -> AsyncIterator[Answer]:
        data = options.get("data") or b""
        body = bytes(data) if isinstance(data, bytes) else b"".join([bytes(piece) async for piece in data])
        headers = dict(options.get("headers") or {})
        timeout = options.get("timeout")
        limit_s = timeout.sock_read if timeout is not None else 60.0
        yield await self._network.call(
            self._caller, Sent(method, url.update_query(options.get("params") or {}), headers, body), limit_s
        )

    async def close(self) -> None:
        """Nothing is open."""


class SimulatedLink(Link):
    """A link over a simulated network."""

    network: Network

    async def __aenter__(self) -> Self:
        caller = Caller(self._identity.peer.name, self._identity.peer.certificate)
        self._http = Wire(self.network, caller)  # type: ignore[assignment]
        return self


def member(process: Process, network: Network, who: tuple[Identity, TrustStore], folder: Path, route: Route) -> Node:
    """A node that dials over ``network``."""
    link = SimulatedLink(*who, "https://cloud.example", route, Meter())
    link.network = network
    uplink = Uplink(link, folder, OutboxLimits())
    process.databases.append(uplink.database)
    process.stores += [uplink.blobs, uplink._inbox._blobs]
    process.claims.append(uplink._claim)
    return Node([who], uplink)


def aggregator(process: Process, network: Network, who: tuple[Identity, TrustStore], folder: Path) -> tuple[Node, Hub]:
    """A hub and its node, called over ``network``."""
    hub = Hub.create(connect(f"sqlite:///{folder / 'hub.db'}"), folder / "blobs")
    process.databases.append(hub.database)
    process.stores.append(hub.blobs)
    process.claims.append(hub._claim)
    network.server, network.app = process, web.Application()
    FederationServer(*who, hub).add_routes(network.app)
    network.app.freeze()
    return Node.aggregator([who], hub), hub


@contextmanager
def simulated() -> Iterator[Loop]:
    """A loop in which databases do their work at once."""
    with mock.patch("federation.database.ThreadPoolExecutor", Inline):
        loop = Loop()
        asyncio.set_event_loop(loop)
        try:
            yield loop
        finally:
            asyncio.set_event_loop(None)
            loop.close()
