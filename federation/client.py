"""A member's side of the wire: every call of ``/federation/v1`` over one aiohttp session. Members only dial out.

A call raises `RefusedError` where the aggregator says no, `UnreachableError` where it cannot be reached; who calls decides
whether to try again. Only the transfer of a blob goes on by itself where it was cut.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
import orjson
from yarl import URL

from federation.backoff import Backoff
from federation.blobs import BlobStore
from federation.errors import FederationError, RefusedError, UnreachableError
from federation.mailbox import Delivery
from federation.server import READ_BUFFER_BYTES
from federation.wire import ACK, BLOB, LENGTH, OFFSET, PREFIX, VERSIONS, split
from trust import tls
from trust.identity import Identity, Peer, TrustStore

POLL_S = 30.0
CONNECT_S = 10.0
SILENCE_S = 60.0
"""A transfer without a byte for this long is cut, and begun again where it stood."""


@dataclass(frozen=True, slots=True)
class Session:
    """What both sides agreed on, and who takes part."""

    version: int
    aggregator: Peer
    participants: Mapping[str, Peer]


class Link:
    """Calls to one aggregator. Raises FederationError FF-FED-021 for an address that is not https."""

    def __init__(self, identity: Identity, trust: TrustStore, url: str) -> None:
        self._identity, self._trust = identity, trust
        self._base = URL(url) / PREFIX.lstrip("/")
        if self._base.scheme != "https":
            raise FederationError(
                "FF-FED-021",
                f'expected an address like https://cloud.example:8443, got "{url}"',
                hint="learning needs mutual TLS: correct `url` in the section [coordinator]",
            )
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            ssl=tls.client_context(self._identity, self._trust), limit=16, keepalive_timeout=POLL_S * 3
        )
        self._http = aiohttp.ClientSession(
            connector=connector,
            read_bufsize=READ_BUFFER_BYTES,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S + POLL_S),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.close()

    async def hello(self) -> Session:
        """Open a session. Raises RefusedError FF-FED-012 where there is no version or suite in common."""
        offer = {"versions": list(VERSIONS), "suites": [self._identity.peer.suite]}
        async with self._call("POST", "hello", data=orjson.dumps(offer)) as response:
            content = orjson.loads(await response.read())
        peers = {
            name: self._trust.verify(certificate.encode()) for name, certificate in content["participants"].items()
        }
        return Session(content["version"], peers[content["name"]], peers)

    async def post(self, sealed: bytes, blob: tuple[str, int] | None, acks: Collection[int]) -> None:
        """Hand over a message; it is durable there when this returns. ``blob`` is its name and size, uploaded before."""
        headers = {"Content-Type": "application/octet-stream"}
        if blob is not None:
            headers[BLOB] = f"{blob[0]};{blob[1]}"
        if acks:
            headers[ACK] = ",".join(map(str, acks))
        async with self._call("POST", "messages", data=sealed, headers=headers):
            return

    async def poll(self, after: int) -> list[Delivery]:
        """Messages behind the cursor ``after``, as soon as there are any; none after half a minute."""
        query = {"after": str(after), "wait": str(POLL_S)}
        async with self._call("GET", "messages", params=query) as response:
            return split(await response.read())

    async def ack(self, cursors: Collection[int]) -> None:
        """These are committed here and may be forgotten there."""
        async with self._call("POST", "ack", data=orjson.dumps({"cursors": list(cursors)})):
            return

    async def withdraw(self, message: str) -> None:
        """Take back a message of ours that nobody has acknowledged."""
        async with self._call("DELETE", f"messages/{message}"):
            return

    async def upload(self, blobs: BlobStore, blob: str, *, resume: bool) -> None:
        """Bring a blob there, whole. With ``resume`` ask first how much of it has arrived already.

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

    async def download(self, blob: str) -> AsyncIterator[bytes]:
        """The bytes of a blob; where the line breaks, it goes on from there. Raises RefusedError FF-FED-013 where it is gone."""
        backoff, offset, size = Backoff(), 0, -1
        while offset != size:
            try:
                async with self._call("GET", f"blobs/{blob}", headers={"Range": f"bytes={offset}-"}) as response:
                    size = offset + (response.content_length or 0)
                    async for piece in response.content.iter_any():
                        offset += len(piece)
                        backoff.reset()
                        yield piece
            except UnreachableError:
                await backoff.pause()

    async def _upload_from(self, offset: int, blobs: BlobStore, blob: str) -> None:
        size = blobs.size(blob)
        if offset >= size:
            return
        headers = {OFFSET: str(offset), LENGTH: str(size), "Content-Length": str(size - offset)}
        async with self._call("PATCH", f"blobs/{blob}", data=blobs.read(blob, offset), headers=headers):
            return

    async def _arrived(self, blob: str) -> int:
        async with self._call("HEAD", f"blobs/{blob}") as response:
            return int(response.headers[OFFSET])

    @asynccontextmanager
    async def _call(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._http is None:
            raise RuntimeError("a link is used inside `async with`")
        try:
            async with self._http.request(method, self._base / path, **options) as response:
                if response.status >= 400:
                    raise _failure(response.status, await response.read())
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnreachableError(
                "FF-FED-020",
                f"{self._base.origin()} cannot be reached: {error or type(error).__name__}",
                hint="it is tried again by itself; check the address, the network and that the coordinator runs",
            ) from error


def _failure(status: int, body: bytes) -> FederationError:
    """The aggregator's own words, or its status where something else answered."""
    try:
        error = orjson.loads(body)["error"]
        code, message, hint = error["code"], error["message"], error["hint"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        code, message, hint = "FF-FED-022", f"the aggregator answered with status {status}", "look at its log"
    if status >= 500 or status in (408, 425, 429):
        return UnreachableError(code, message, hint=hint)
    return RefusedError(code, message, hint=hint, status=status)
