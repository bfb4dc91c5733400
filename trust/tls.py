"""TLS for both suites: mutual, 1.3 only, certificates of our CA that are in time and not revoked.

``gm`` is RFC 8998 (`trust.rfc8998`), ``intl`` the standard library's `ssl`. The contexts go into aiohttp as they are; errors come
out as `ssl.SSLError` or `ssl.SSLCertVerificationError` whose text has a code of this room and says what to do.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from trust.errors import TrustError
from trust.handshake import Handshake, handshake_failed
from trust.hostname import wrong_host
from trust.identity import Identity, Peer, TrustStore
from trust.rfc8998 import GmContext

_NO_FAILURE = (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
_WRONG_HOST = {62, 64}  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


def server_context(identity: Identity, trust: TrustStore) -> ssl.SSLContext:
    """For the side that listens: demands a certificate of every client."""
    if identity.peer.suite == "gm":
        return GmContext.create(identity, trust, server=True)
    return _intl(identity, trust, ssl.PROTOCOL_TLS_SERVER)


def client_context(identity: Identity, trust: TrustStore) -> ssl.SSLContext:
    """For the side that dials: checks that the server's certificate is for the host that was dialled."""
    if identity.peer.suite == "gm":
        return GmContext.create(identity, trust, server=False)
    return _intl(identity, trust, ssl.PROTOCOL_TLS_CLIENT)


def peer(transport: asyncio.BaseTransport | None, trust: TrustStore) -> Peer:
    """Who is at the other end, by the certificate of this connection as the trust store sees it now.

    Raises TrustError where the connection has no TLS or its certificate does not hold (any more).
    """
    connection = transport.get_extra_info("ssl_object") if transport is not None else None
    certificate = connection.getpeercert(True) if connection is not None else None
    if certificate is None:
        raise TrustError(
            "FF-TLS-004",
            "nobody is authenticated on this connection: expected mutual TLS",
            hint="dial https:// with a client certificate",
        )
    return trust.verify(ssl.DER_cert_to_PEM_cert(certificate).encode())


class _IntlObject(Handshake, ssl.SSLObject):
    """The standard library's connection; the trust store has the last word, and errors say what to do."""

    def read(self, len: int = 1024, buffer: bytearray | None = None) -> bytes | int:  # type: ignore[override]
        """A client learns here that the server refused it: in TLS 1.3 its own part of the handshake is long over."""
        try:
            return ssl.SSLObject.read(self, len, buffer)
        except _NO_FAILURE:
            raise
        except ssl.SSLError as error:
            raise self._explained(error) from error

    def _shake(self) -> None:
        try:
            ssl.SSLObject.do_handshake(self)
        except _NO_FAILURE:
            raise
        except ssl.SSLError as error:
            raise self._explained(error) from error

    def _explained(self, error: ssl.SSLError) -> ssl.SSLError:
        if not isinstance(error, ssl.SSLCertVerificationError):
            return ssl.SSLError(1, str(handshake_failed(error.reason or str(error))))
        host = self.server_hostname
        if host is not None and error.verify_code in _WRONG_HOST:
            return ssl.SSLCertVerificationError(1, str(wrong_host(host, error.verify_message)))
        return ssl.SSLCertVerificationError(1, str(self._trust().refusal(error.verify_code, host or "a client")))

    def _check(self) -> None:
        certificate = self.getpeercert(True)
        if certificate is not None:
            self._trust().verify(ssl.DER_cert_to_PEM_cert(certificate).encode())

    def _trust(self) -> TrustStore:
        return cast("_IntlContext", self.context).trust


class _IntlContext(ssl.SSLContext):
    trust: TrustStore
    sslobject_class = _IntlObject


def _intl(identity: Identity, trust: TrustStore, protocol: int) -> ssl.SSLContext:
    context = _IntlContext(protocol)
    context.trust = trust
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(identity.folder / "intl.crt", identity.folder / "intl.key")
    context.load_verify_locations(trust.ca)
    return context
