"""The server's side of TLS: its own certificate, and what it asks of clients."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable

from aiohttp import web

from gateway.config.inference import Inference
from gateway.config.member import Trust
from gateway.errors import GatewayError
from trust import tls
from trust.errors import TrustError
from trust.identity import Identity, TrustStore


def context(settings: Inference, trust: Trust | None) -> ssl.SSLContext | None:
    """For the side that listens; None for plain HTTP, which the configuration allows on loopback only.

    Raises GatewayError FF-DAEMON-001 for files that cannot be used, TrustError where the identity of ``trust`` cannot.
    """
    if settings.identity:
        own = trust or Trust()
        return tls.server_context(Identity.load(own.identity, own.suite), TrustStore.load(own.identity, own.suite))
    if settings.certificate is None or settings.key is None:
        return None
    found = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    found.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        renew(found, settings)
        if settings.client_ca is not None:
            found.load_verify_locations(settings.client_ca)
            found.verify_mode = ssl.CERT_OPTIONAL if _some_show_none(settings) else ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise GatewayError(
            "FF-DAEMON-001",
            f"inference: certificate {settings.certificate}, key {settings.key} or client_ca {settings.client_ca} cannot be used: {error}",
            hint="all must be PEM files, certificate and key belong together, the key without a passphrase and readable by this user",
        ) from error
    return found


def renew(found: ssl.SSLContext, settings: Inference) -> None:
    """Take certificate and key from their files again: connections from now on see them. Raises OSError or ssl.SSLError."""
    if settings.certificate is not None and settings.key is not None:
        found.load_cert_chain(settings.certificate, settings.key)


def names(settings: Inference, trust: Trust | None) -> Callable[[web.BaseRequest], Iterable[str]]:
    """How to learn the names in the certificate that a client shows."""
    if not settings.identity:
        return _names
    own = trust or Trust()
    store = TrustStore.load(own.identity, own.suite)

    def participant(request: web.BaseRequest) -> Iterable[str]:
        try:
            return (tls.peer(request.transport, store).name,)
        except TrustError:
            return ()

    return participant


def _names(request: web.BaseRequest) -> Iterable[str]:
    """Common name and DNS names of a certificate that the handshake has verified."""
    transport = request.transport
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    if not certificate:
        return ()
    subject = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return [*subject, *(value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS")]


def _some_show_none(settings: Inference) -> bool:
    """Whether there are clients that sign instead, or need not prove anything."""
    return bool(settings.open) or any(client.secret is not None for client in settings.clients)
