"""A member's side of the wire: every call of ``/federation/v1`` over one aiohttp session. Members only dial out.

A call raises `RefusedError` where the aggregator says no, `UnreachableError` where it cannot be reached; who calls decides
whether to try again. What a line allows (how long it may be silent, how large a body may be) is found out on the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import aiohttp
import orjson
from yarl import URL

from federation import progress
from federation.backoff import Backoff
from federation.blobs import BlobStore
from federation.errors import FederationError, RefusedError, UnreachableError
from federation.mailbox import Delivery
from federation.metrics import Meter
from federation.patience import SHORTEST_POLL_S, Pieces, Polls, shorter
from federation.route import Route
from federation.sockets import watchful_socket
from federation.wire import ACK, BLOB, LENGTH, OFFSET, PREFIX, READ_BUFFER_BYTES, VERSIONS, split
from trust import tls
from trust.identity import Identity, Peer, TrustStore

_NOT_HEARD = "FF-FED-022"


@dataclass(frozen=True, slots=True)
class Session:
    """What both sides agreed on, who takes part, what time it is there, and what was met of us."""

    version: int
    aggregator: Peer
    participants: Mapping[str, Peer]
    time_s: float | None
    """The aggregator's clock, seconds since 1970, and how long its answer took; None from one that does not say."""
    waited_s: float
    met: int
    """The greatest sequence of ours that the aggregator has met."""


class Link:
    """Calls to one aggregator. Raises FederationError FF-FED-021 for an address, or a proxy's, that is not what it must be."""

    def __init__(
        self, identity: Identity, trust: TrustStore, url: str, route: Route | None = None, meter: Meter | None = None
    ) -> None:
        self._identity, self._trust, self._route = identity, trust, route or Route()
        self.meter = meter or Meter()
        self._base = URL(url) / PREFIX.lstrip("/")
        if self._base.scheme != "https":
            raise FederationError(
                "FF-FED-021",
                f'expected an address like https://cloud.example:8443, got "{url}"',
                hint="learning needs mutual TLS: correct `url` in the section [coordinator]",
            )
        self._peer = self._base.host or ""
        self._proxy, self._login = _proxy(self._route), _login(self._route)
        self._polls, self._pieces = Polls(self._route.poll_s), Pieces(self._route.piece_bytes)
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        route = self._route
        connector = aiohttp.TCPConnector(
            ssl=tls.client_context(self._identity, self._trust),
            limit=16,
            keepalive_timeout=route.poll_s * 3,
            socket_factory=watchful_socket,
        )
        self._http = aiohttp.ClientSession(
            connector=connector,
            read_bufsize=READ_BUFFER_BYTES,
            auto_decompress=False,
            trust_env=False,  # the configuration alone says where the way leads
            proxy=self._proxy,
            timeout=_timeout(route, 0.0),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.close()

    async def hello(self, met: Mapping[str, int] | None = None) -> Session:
        """Open a session, saying which sequences of others we have met. Raises RefusedError FF-FED-012 where there is no version
        or suite in common.
        """
        offer = {"versions": list(VERSIONS), "suites": [self._identity.peer.suite], "met": dict(met or {})}
        asked = asyncio.get_running_loop().time()
        async with self._call("POST", "hello", data=orjson.dumps(offer)) as response:
            content = orjson.loads(await response.read())
        peers = {
            name: self._trust.verify(certificate.encode()) for name, certificate in content["participants"].items()
        }
        self._peer = content["name"]
        theirs = content.get("time_ms")
        return Session(
            content["version"],
            peers[content["name"]],
            peers,
            theirs / 1000 if theirs is not None else None,
            asyncio.get_running_loop().time() - asked,
            int(content.get("met", 0)),
        )

    async def post(self, sealed: bytes, blob: tuple[str, int] | None, acks: Collection[int]) -> None:
        """Hand over a message; it is durable there when this returns. ``blob`` is its name and size, uploaded before."""
        headers = {"Content-Type": "application/octet-stream"}
        if blob is not None:
            headers[BLOB] = f"{blob[0]};{blob[1]}"
        if acks:
            headers[ACK] = ",".join(map(str, acks))
        async with self._call("POST", "messages", data=sealed, headers=headers):
            self.meter.message_sent(self._peer, len(sealed))

    async def poll(self, after: int) -> list[Delivery]:
        """Messages behind the cursor ``after``, as soon as there are any; none after half a minute, or less where the line wants it.

        A silent line that was cut is asked again, for a shorter time: if that goes well, something on the way cuts silent lines. (An
        attempt may be two: aiohttp repeats a GET by itself on a new line where a used one was cut.)
        """
        loop = asyncio.get_running_loop()
        begun, wait_s, found = loop.time(), self._polls.seconds, None
        while found is None:
            asked = loop.time()
            try:
                found = await self._poll(after, wait_s)
            except UnreachableError as error:
                silent_s = loop.time() - asked
                if isinstance(error.__cause__, TimeoutError) or min(wait_s, silent_s) <= SHORTEST_POLL_S:
                    raise
                wait_s = shorter(wait_s, silent_s)
        if wait_s < self._polls.seconds:
            self._polls.cut(wait_s)
        self.meter.polled(loop.time() - begun)
        for one in found:
            self.meter.message_received(self._peer, len(one.sealed))
        return found

    async def ack(self, cursors: Collection[int]) -> None:
        """These are committed here and may be forgotten there."""
        async with self._call("POST", "ack", data=orjson.dumps({"cursors": list(cursors)})):
            return

    async def withdraw(self, message: str) -> None:
        """Take back a message of ours that nobody has acknowledged."""
        async with self._call("DELETE", f"messages/{message}"):
            return

    async def upload(self, blobs: BlobStore, blob: str, *, resume: bool) -> None:
        """Bring a blob there, whole, in pieces. With ``resume`` ask first how much of it has arrived already.

        Raises RefusedError FF-FED-016 (409) without ``resume``, where some of it has arrived.
        """
        if not resume:
            await self._upload_from(0, blobs, blob)
            return
        try:
            await self._upload_from(await self._arrived(blob), blobs, blob)
        except RefusedError as error:
            if error.status != 409:
                raise
            # Bytes of the line that was cut were still being written when we asked. Our call has ended that, so now it stands still.
            await self._upload_from(await self._arrived(blob), blobs, blob)

    async def download(self, blob: str, offset: int = 0) -> AsyncIterator[bytes]:
        """The bytes of a blob from ``offset`` on, in pieces; where the line breaks, it goes on from there.

        Raises RefusedError FF-FED-013 where it is gone.
        """
        backoff, whole, loop = Backoff(), False, asyncio.get_running_loop()
        while not whole:
            size, begun, start = self._pieces.size, loop.time(), offset
            wanted = {"Range": f"bytes={offset}-{offset + size - 1}"}
            try:
                async with self._call("GET", f"blobs/{blob}", headers=wanted) as response:
                    end = _end(response)
                    async for piece in response.content.iter_any():
                        offset += len(piece)
                        self.meter.received_bytes[self._peer] += len(piece)
                        backoff.reset()
                        yield piece
                self._pieces.passed(offset - start, loop.time() - begun)
                whole = offset >= end
            except UnreachableError:
                self._pieces.cut()
                await backoff.pause()
            except RefusedError as error:
                if not self._too_large_for_the_way(error):
                    raise

    async def _poll(self, after: int, wait_s: float) -> list[Delivery]:
        query = {"after": str(after), "wait": f"{wait_s:g}"}
        timeout = _timeout(self._route, wait_s)
        async with self._call("GET", "messages", params=query, timeout=timeout) as response:
            if response.status == 204:
                self._polls.whole()
            return split(await response.read())

    async def _upload_from(self, offset: int, blobs: BlobStore, blob: str) -> None:
        size, loop = blobs.size(blob), asyncio.get_running_loop()
        while offset < size:
            begun, end = loop.time(), min(size, offset + self._pieces.size)
            try:
                await self._moving(partial(self._patch, blobs, blob, offset, end, size))
            except UnreachableError as error:
                if error.code in ("FF-FED-020", _NOT_HEARD):
                    self._pieces.cut()
                raise
            except RefusedError as error:
                if not self._too_large_for_the_way(error):
                    raise
            else:
                self._pieces.passed(end - offset, loop.time() - begun)
                offset = end

    async def _patch(self, blobs: BlobStore, blob: str, start: int, end: int, size: int) -> None:
        async def counted() -> AsyncIterator[memoryview]:
            async for piece in blobs.read(blob, start, end):
                yield piece
                self.meter.sent_bytes[self._peer] += len(piece)
                progress.tick()

        headers = {OFFSET: str(start), LENGTH: str(size), "Content-Length": str(end - start)}
        async with self._call("PATCH", f"blobs/{blob}", data=counted(), headers=headers):
            return

    async def _moving(self, transfer: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Give a transfer up that does not move any more: behind a proxy the kernel cannot know that the far end is gone."""
        try:
            await progress.within(self._route.silence_s, transfer)
        except TimeoutError as error:
            raise self._unreachable(f"nothing moved for {self._route.silence_s:g} s") from error

    def _too_large_for_the_way(self, error: RefusedError) -> bool:
        """Whether something on the way, not the aggregator, refused a body for its size; smaller pieces are tried then."""
        if error.status != 413 or error.code != _NOT_HEARD or self._pieces.smallest:
            return False
        self._pieces.refused()
        return True

    async def _arrived(self, blob: str) -> int:
        async with self._call("HEAD", f"blobs/{blob}") as response:
            return int(response.headers[OFFSET])

    @asynccontextmanager
    async def _call(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._http is None:
            raise RuntimeError("a link is used inside `async with`")
        try:
            async with self._http.request(method, self._base / path, proxy_headers=self._login, **options) as response:
                if response.status >= 400:
                    raise _failure(response.status, await response.read())
                yield response
        except aiohttp.ClientHttpProxyError as error:
            raise UnreachableError(
                "FF-FED-027",
                f"the proxy {self._proxy} does not let us through to {self._base.origin()}: {error.status} {error.message}",
                hint="check user and password in [coordinator] `proxy` and `proxy_password`, and that the proxy allows CONNECT to it",
            ) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unreachable(str(error) or type(error).__name__) from error

    def _unreachable(self, why: str) -> UnreachableError:
        through = f" through the proxy {self._proxy}" if self._proxy else ""
        return UnreachableError(
            "FF-FED-020",
            f"{self._base.origin()} cannot be reached{through}: {why}",
            hint="it is tried again by itself; check the address, the network and that the coordinator runs",
        )


def _proxy(route: Route) -> URL | None:
    if route.proxy is None:
        return None
    url = URL(route.proxy)
    if url.scheme != "http" or not url.host or url.password is not None:
        raise FederationError(
            "FF-FED-021",
            "expected a proxy like http://user@proxy.example:3128, without a password, got another address",
            hint="correct `proxy` in the section [coordinator]; its password stands in `proxy_password`",
        )
    return url.with_user(None)


def _login(route: Route) -> dict[str, str] | None:
    user = URL(route.proxy).user if route.proxy is not None else None
    if user is None:
        return None
    return {"Proxy-Authorization": aiohttp.encode_basic_auth(user, route.proxy_password or "")}


def _timeout(route: Route, wait_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=route.connect_s, sock_read=route.silence_s + wait_s)


def _end(response: aiohttp.ClientResponse) -> int:
    """Where the whole blob ends."""
    if response.status == 206:
        return int(response.headers["Content-Range"].rpartition("/")[2])
    return response.content_length or 0


def _failure(status: int, body: bytes) -> FederationError:
    """The aggregator's own words, or its status where something else answered."""
    try:
        error = orjson.loads(body)["error"]
        code, message, hint = error["code"], error["message"], error["hint"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        code, message = _NOT_HEARD, f"something answered with status {status} that is not fedfab"
        hint = "look at the coordinator's log, and at what stands between (a proxy, a firewall)"
    if status >= 500 or status in (408, 425, 429):
        return UnreachableError(code, message, hint=hint)
    return RefusedError(code, message, hint=hint, status=status)
