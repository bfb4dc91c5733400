"""The aggregator's side of the wire: ``/federation/v1`` over mutual TLS. A certificate says who is calling (`federation.callers`).

Every handler asks for the caller first, and gives nothing to one who is not admitted. It relays what it cannot read.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import orjson
import structlog
from aiohttp import web

from common.errors import FedfabError
from federation.blobs import owner
from federation.callers import Callers
from federation.errors import RefusedError
from federation.hub import Hub
from federation.journal import newest_met
from federation.mailbox import Delivery, Parcel, remove
from federation.wire import ACK, BLOB, LENGTH, MAX_MESSAGE_BYTES, OFFSET, PREFIX, READ_BUFFER_BYTES, VERSIONS, join
from trust.envelope import peek
from trust.errors import TrustError
from trust.identity import Identity, Peer, TrustStore

log = structlog.get_logger()

LONGEST_WAIT_S = 60.0
_LARGEST_SEQUENCE = 1 << 62
_CONTROL_BYTES = 1 << 20

Handler = Callable[[web.Request, Peer], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What is taken from one caller at a time; blobs have the limit of their store."""

    message_bytes: int = MAX_MESSAGE_BYTES


class FederationServer:
    """The routes of one listener with one suite; several may share a `Hub`."""

    def __init__(
        self, identity: Identity, callers: Callers | TrustStore, hub: Hub, limits: Limits | None = None
    ) -> None:
        self._identity, self._hub = identity, hub
        self._callers = callers if isinstance(callers, Callers) else Callers(callers)
        self._limits = limits or Limits()
        self._patience: set[asyncio.Timeout] = set()

    def renew(self, identity: Identity) -> None:
        """Show this certificate to members from now on: a later one of the same key."""
        self._identity = identity

    def add_routes(self, app: web.Application) -> None:
        """Offer the protocol under ``/federation/v1`` of ``app``."""
        app.add_routes(
            [
                web.post(f"{PREFIX}/hello", self._guarded(self._hello)),
                web.post(f"{PREFIX}/messages", self._guarded(self._post)),
                web.get(f"{PREFIX}/messages", self._guarded(self._poll)),
                web.delete(f"{PREFIX}/messages/{{id}}", self._guarded(self._withdraw)),
                web.post(f"{PREFIX}/ack", self._guarded(self._ack)),
                web.get(f"{PREFIX}/blobs/{{blob}}", self._guarded(self._download), allow_head=False),
                web.head(f"{PREFIX}/blobs/{{blob}}", self._guarded(self._offset)),
                web.patch(f"{PREFIX}/blobs/{{blob}}", self._guarded(self._upload)),
            ]
        )
        app.on_shutdown.append(self._end_polls)

    async def _hello(self, request: web.Request, caller: Peer) -> web.StreamResponse:
        offer = await _json(request)
        versions, suites = offer.get("versions"), offer.get("suites")
        if not isinstance(versions, list) or not isinstance(suites, list):
            raise _malformed("expected lists of versions and suites")
        ours = self._identity.peer.suite
        common = [version for version in VERSIONS if version in versions]
        if not common or ours not in suites:
            raise RefusedError(
                "FF-FED-012",
                f"nothing in common: you speak versions {versions} in suites {suites}, "
                f"this listener versions {list(VERSIONS)} in suites {[ours]}",
                hint="install versions of fedfab that overlap, and set the same `[trust] suite` on both sides",
                status=406,
            )
        await self._hub.participants.add(caller)
        name, met = self._identity.peer.name, offer.get("met")
        ours_met = met.get(name) if isinstance(met, dict) else None
        if isinstance(ours_met, int) and 0 <= ours_met < _LARGEST_SEQUENCE:
            self._hub.floors[caller.name] = ours_met
        theirs_met = await self._hub.database.read(lambda connection: newest_met(connection, [caller.name]))
        self._hub.meter.sessions += 1
        known = self._hub.participants.certificates(ours) | {name: self._identity.peer.certificate}
        return _answer(
            {
                "version": common[0],
                "suite": ours,
                "name": name,
                "time_ms": time.time_ns() // 1_000_000,
                "met": theirs_met.get(caller.name, 0),
                "participants": {member: certificate.decode() for member, certificate in known.items()},
            }
        )

    async def _post(self, request: web.Request, caller: Peer) -> web.StreamResponse:
        sealed = await _body(request, self._limits.message_bytes)
        header = peek(sealed)
        if header.sender != caller.name:
            raise RefusedError(
                "FF-FED-011",
                f'"{caller.name}" sent a message in the name of "{header.sender}"',
                hint="every participant sends under the name in its own certificate",
                status=403,
            )
        self._require_recipient(header.recipient)
        blob = self._named_blob(request, caller)
        cursors = _cursors(request.headers.get(ACK, ""))
        added = await self._hub.mailbox.put(
            [Parcel(sealed, blob)], lambda connection: remove(connection, caller.name, cursors) if cursors else ()
        )
        self._hub.meter.message_received(caller.name, len(sealed))
        if not added:
            self._hub.meter.repeated[caller.name] += 1
        return web.Response(status=202 if added else 200)

    async def _poll(self, request: web.Request, caller: Peer) -> web.StreamResponse:
        try:
            after, wait_s = int(request.query.get("after", "0")), float(request.query.get("wait", "0"))
        except ValueError as error:
            raise _malformed("expected numbers for after and wait") from error
        found = await self._waited(caller, after, max(0.0, min(wait_s, LONGEST_WAIT_S)))
        if not found:
            return web.Response(status=204)
        for one in found:
            self._hub.meter.message_sent(caller.name, len(one.sealed))
        return web.Response(body=join(found), content_type="application/octet-stream")

    async def _waited(self, caller: Peer, after: int, seconds: float) -> list[Delivery]:
        """`Mailbox.wait`, cut short when the listener closes: who stops need not sit out the patience of all members."""
        patience = asyncio.timeout(None)
        self._patience.add(patience)
        try:
            async with patience:
                return await self._hub.mailbox.wait(caller.name, after, seconds)
        except TimeoutError:
            return []
        finally:
            self._patience.discard(patience)

    async def _end_polls(self, app: web.Application) -> None:
        now = asyncio.get_running_loop().time()
        for patience in self._patience:
            if patience.when() is None:
                patience.reschedule(now)

    async def _withdraw(self, request: web.Request, caller: Peer) -> web.StreamResponse:
        await self._hub.mailbox.withdraw(caller.name, [request.match_info["id"]])
        return web.Response(status=204)

    async def _ack(self, request: web.Request, caller: Peer) -> web.StreamResponse:
        cursors = (await _json(request)).get("cursors")
        if not isinstance(cursors, list) or not all(isinstance(cursor, int) for cursor in cursors):
            raise _malformed("expected a list of cursors")
        await self._hub.mailbox.ack(caller.name, cursors)
        return web.Response(status=204)

    async def _offset(self, request: web.Request, caller: Peer) -> web.StreamResponse:
        blob = self._own_blob(request, caller)
        return web.Response(headers={OFFSET: str(self._hub.blobs.size(blob))})

    async def _upload(self, request: web.Request, caller: Peer) -> web.StreamResponse:
        blob = self._own_blob(request, caller)
        try:
            offset, length = int(request.headers[OFFSET]), int(request.headers[LENGTH])
        except (KeyError, ValueError) as error:
            raise _malformed(f"expected numbers in the headers {OFFSET} and {LENGTH}") from error
        try:
            stands = await self._hub.blobs.write(blob, offset, length, self._heard(request, caller))
        except RefusedError as error:
            if error.status == 409:
                return _error(error, error.status, {OFFSET: str(self._hub.blobs.size(blob))})
            raise
        return web.Response(status=204, headers={OFFSET: str(stands)})

    async def _download(self, request: web.Request, caller: Peer) -> web.StreamResponse:
        blob = request.match_info["blob"]
        size = self._hub.blobs.size(blob)
        if not size or not (owner(blob) == caller.name or await self._hub.mailbox.may_read(caller.name, blob)):
            raise RefusedError(
                "FF-FED-013",
                f'there is no blob {blob} for "{caller.name}"',
                hint="the message that named it was acknowledged or withdrawn; nothing is to be done",
                status=404,
            )
        start, end = _range(request, size)
        response = web.StreamResponse(
            status=206 if "Range" in request.headers else 200, headers={"Content-Type": "application/octet-stream"}
        )
        response.content_length = end - start
        if response.status == 206:
            response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        await response.prepare(request)
        async for piece in self._hub.blobs.read(blob, start, end):
            await response.write(piece)
            self._hub.meter.sent_bytes[caller.name] += len(piece)
            self._hub.moved(caller.name)
        await response.write_eof()
        return response

    async def _heard(self, request: web.Request, caller: Peer) -> AsyncIterator[bytes]:
        async for piece in request.content.iter_any():
            self._hub.meter.received_bytes[caller.name] += len(piece)
            self._hub.moved(caller.name)
            yield piece

    def _own_blob(self, request: web.Request, caller: Peer) -> str:
        blob = request.match_info["blob"]
        if owner(blob) != caller.name:
            raise RefusedError("FF-FED-013", f'there is no blob {blob} of "{caller.name}"', status=404)
        return blob

    def _named_blob(self, request: web.Request, caller: Peer) -> str | None:
        if BLOB not in request.headers:
            return None
        blob, _, length = request.headers[BLOB].partition(";")
        stands = self._hub.blobs.size(blob)
        if owner(blob) != caller.name or not length.isdecimal() or stands != int(length):
            raise RefusedError(
                "FF-FED-016",
                f"the message names blob {blob} with {length} bytes, of which {stands} have arrived",
                hint="the blob is uploaded before the message; it goes on from where it stands",
                status=409,
            )
        return blob

    def _require_recipient(self, name: str) -> None:
        if name != self._identity.peer.name and name not in self._hub.participants:
            raise RefusedError(
                "FF-FED-010",
                f'there is no participant "{name}"',
                hint="it becomes known when it first connects; check its name and that its gateway runs",
                status=404,
            )

    def _guarded(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Find out who calls, refuse who is not admitted, and turn errors into answers with their codes."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                caller = self._callers.peer(request)
                if not self._hub.admits(caller):
                    raise RefusedError(
                        "FF-FED-011",
                        f'"{caller.name}" ({caller.role}) may not take part in learning here',
                        hint="gateways take part; ask the operator of the aggregator to enrol this one",
                        status=403,
                    )
                return await handler(request, caller)
            except RefusedError as error:
                return _error(error, error.status)
            except TrustError as error:
                return _error(error, 403)
            except FedfabError as error:
                return _error(error, 400)

        return handle


async def listen(app: web.Application, host: str, port: int, context: ssl.SSLContext | None) -> web.AppRunner:
    """Serve ``app`` until the runner is cleaned up, with buffers that suit blobs; without ``context`` plain HTTP."""
    runner = made(app)
    await runner.setup()
    await web.TCPSite(runner, host, port, ssl_context=context, backlog=1024).start()
    return runner


def made(app: web.Application) -> web.AppRunner:
    """A runner for ``app`` with buffers that suit blobs."""
    return web.AppRunner(
        app, access_log=None, read_bufsize=READ_BUFFER_BYTES, handler_cancellation=True, shutdown_timeout=2.0
    )


def _range(request: web.Request, size: int) -> tuple[int, int]:
    """First byte, and the one behind the last, of what is asked. Raises RefusedError FF-FED-016 for what is not there."""
    try:
        asked = request.http_range
    except ValueError:
        asked = slice(-1, None)
    start, end = asked.start or 0, min(size, size if asked.stop is None else asked.stop)
    if not 0 <= start < end:
        raise RefusedError("FF-FED-016", f"the blob has {size} bytes; expected a Range: bytes=FIRST-[LAST]", status=416)
    return start, end


async def _json(request: web.Request) -> dict[str, object]:
    data = await _body(request, _CONTROL_BYTES)
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _malformed(f"expected JSON: {error}") from error
    if not isinstance(content, dict):
        raise _malformed("expected a JSON object")
    return content


async def _body(request: web.Request, limit: int) -> bytes:
    """The whole body, refused as soon as it grows beyond ``limit``."""
    parts, size = [], 0
    async for piece in request.content.iter_any():
        parts.append(piece)
        size += len(piece)
        if size > limit:
            raise RefusedError(
                "FF-FED-017",
                f"the body has more than {limit} bytes",
                hint="large content travels in blobs",
                status=413,
            )
    return b"".join(parts)


def _cursors(text: str) -> list[int]:
    try:
        return [int(cursor) for cursor in text.split(",") if cursor]
    except ValueError as error:
        raise _malformed(f"expected cursors in the header {ACK}") from error


def _malformed(why: str) -> RefusedError:
    return RefusedError("FF-FED-019", f"the request cannot be read: {why}", hint="see docs/protocol.md", status=400)


def _answer(content: object) -> web.Response:
    return web.Response(body=orjson.dumps(content), content_type="application/json")


def _error(error: FedfabError, status: int, headers: dict[str, str] | None = None) -> web.Response:
    log.info("request refused", code=error.code, reason=error.message)
    content = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
    return web.Response(status=status, body=orjson.dumps(content), content_type="application/json", headers=headers)
