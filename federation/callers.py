"""Who is calling: by the certificate of the connection, or by the word of a reverse proxy that was named for it (RFC 9440)."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from urllib.parse import unquote
from weakref import WeakKeyDictionary

from aiohttp import web

from federation.errors import RefusedError
from federation.sockets import UNSENT_BYTES, watchful
from trust import tls
from trust.identity import Peer, TrustStore

HEADER = "Client-Cert"
RECHECK_S = 5.0
"""A certificate is looked at anew after so long: a revoked one does not hold as long as its connection does."""


class Callers:
    """The callers of one listener.

    ``proxy`` is the name in the certificate (role ``proxy``) of the reverse proxy that ends members' TLS and passes on whom it has
    seen. Nobody else's header is looked at. What it passes on is verified here again, but for the possession of the key: that the
    proxy has seen.
    """

    def __init__(self, trust: TrustStore, proxy: str | None = None) -> None:
        self._trust, self._proxy = trust, proxy
        self._known: WeakKeyDictionary[asyncio.Transport, tuple[Peer, float]] = WeakKeyDictionary()

    def peer(self, request: web.Request) -> Peer:
        """Who calls. Raises TrustError for a certificate that does not hold, RefusedError FF-FED-028 (403) for a proxy that does
        not say for whom it calls.
        """
        direct = self._direct(request.transport)
        if direct.role != "proxy" or direct.name != self._proxy:
            return direct
        return self._trust.verify(_forwarded(request.headers.getall(HEADER, [])))

    def _direct(self, transport: asyncio.Transport | None) -> Peer:
        now = time.monotonic()
        known = self._known.get(transport) if transport is not None else None
        if known is not None and now - known[1] < RECHECK_S:
            return known[0]
        caller = tls.peer(transport, self._trust)
        if transport is not None:
            if known is None and (opened := transport.get_extra_info("socket")) is not None:
                watchful(opened)
                transport.set_write_buffer_limits(UNSENT_BYTES)
            self._known[transport] = caller, now
        return caller


def _forwarded(values: list[str]) -> bytes:
    """The certificate in PEM from ``:base64 of DER:`` (RFC 9440 §2.1, HAProxy) or percent-encoded PEM (nginx's
    ``$ssl_client_escaped_cert``)."""
    value = values[0].strip() if len(values) == 1 else ""
    try:
        if len(value) > 2 and value[0] == value[-1] == ":":
            return ssl.DER_cert_to_PEM_cert(base64.b64decode(value[1:-1], validate=True)).encode()
        if value.startswith("-----BEGIN%20CERTIFICATE"):
            return unquote(value, errors="strict").encode()
    except ValueError:
        pass
    raise RefusedError(
        "FF-FED-028",
        f"the proxy passed on no certificate: expected one header {HEADER} with :base64 of DER: or percent-encoded PEM, "
        f"got {len(values)} of other form",
        hint="let it demand client certificates and set the header; docs/federation.md shows nginx and HAProxy",
        status=403,
    )
