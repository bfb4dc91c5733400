"""Who asks, and whether he may: a signature, a certificate, the gateway's own socket, or nobody. Deny by default."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import structlog
from aiohttp import web

from common.secret import Secret
from gateway.config.inference import Inference, Right
from gateway.errors import GatewayError
from gateway.inference.refusal import RefusalError
from gateway.inference.signature import CLIENT, Claim, Replays, Signed, holds

log = structlog.get_logger()

SECRET_MIN = 32
QUIET_S = 60.0
"""The same refusal of the same client is logged once in this time: whoever is not let in may ask very often."""

Names = Callable[[web.BaseRequest], Iterable[str]]
"""The names in the certificate a client shows on this connection; none where it shows none."""


class _Signer(NamedTuple):
    secret: str
    allow: tuple[Right, ...]


class Caller(NamedTuple):
    """Who asks, before a signature is checked."""

    name: str
    """As the configuration or the certificate calls him; "" for somebody unknown."""
    claim: Claim | None
    """To be proved by the body's signature; None where nothing is left to prove."""


ANYBODY = Caller("", None)
LOCAL = Caller("local", None)


class Access:
    """Decides on every request. Reads the clients' secrets when made and at `apply`."""

    def __init__(self, settings: Inference, names: Names) -> None:
        self._replays = Replays(settings.clock_skew_s)
        self._logged: dict[tuple[str, str], float] = {}
        self.apply(settings, names)

    def apply(self, settings: Inference, names: Names) -> None:
        """Go by these settings from now on. Raises SecretError or GatewayError FF-INFER-017, and then keeps the old ones."""
        signers = {
            client.name: _Signer(_read(client.name, client.secret), client.allow)
            for client in settings.clients
            if client.secret is not None
        }
        self._signers, self._names = signers, names
        self._shown = {client.certificate: client for client in settings.clients if client.certificate is not None}
        self._any_shown = settings.identity or settings.client_ca is not None
        self._anybody = frozenset(settings.anybody)
        self._replays.skew_s = settings.clock_skew_s

    def caller(self, request: web.BaseRequest, right: Right) -> Caller:
        """Who asks for something that needs this right; his signature is still to be proved.

        Raises RefusalError FF-INFER-020 where he shows nothing, -021 or -022 for a signature that cannot hold, -025 without the right.
        """
        if right in self._anybody:
            return ANYBODY
        if _is_local(request):
            return LOCAL
        claim = Claim.of(request.headers)
        if claim is not None:
            return self._signing(claim, right)
        for name in self._names(request) if self._any_shown else ():
            client = self._shown.get(name)
            if client is not None:
                return self._may(Caller(client.name, None), client.allow, right)
            if not self._shown:
                return self._may(Caller(name, None), ("infer",), right)
        raise RefusalError(
            401,
            "FF-INFER-020",
            f'this call needs the right "{right}", and nobody has proved to have it',
            hint="sign the request (docs/inference.md), or show a certificate that [inference] client_ca and [[inference.client]] know",
        )

    def prove(self, caller: Caller, request: web.BaseRequest, body: bytes) -> None:
        """Check the signature over the request and its ``body`` as it was sent.

        Raises RefusalError FF-INFER-021 where it does not hold, -023 for a replay, -024 where a replay could not be told.
        """
        if caller.claim is None:
            return
        signer = self._signers[caller.name]
        signed = Signed(request.method, request.raw_path, request.headers, body)
        if not holds(signer.secret, caller.claim, signed):
            raise _unproved(caller.name)
        self._replays.admit(caller.claim)

    def denied(self, request: web.BaseRequest, refusal: RefusalError) -> None:
        """Log that somebody was not let in, though not each time."""
        key = request.headers.get(CLIENT, "")[:64], refusal.code
        now = time.monotonic()
        if now < self._logged.get(key, now):
            return
        if len(self._logged) > 1000:
            self._logged.clear()
        self._logged[key] = now + QUIET_S
        log.warning("not let in", client=key[0], address=request.remote, code=refusal.code, reason=refusal.message)

    def _signing(self, claim: Claim, right: Right) -> Caller:
        signer = self._signers.get(claim.client)
        if signer is None:
            raise _unproved(claim.client)
        self._replays.check_time(claim)
        return self._may(Caller(claim.client, claim), signer.allow, right)

    @staticmethod
    def _may(caller: Caller, allow: tuple[Right, ...], right: Right) -> Caller:
        if right not in allow:
            raise RefusalError(
                403,
                "FF-INFER-025",
                f'client "{caller.name}" may {", ".join(allow)}, this call needs "{right}"',
                hint=f'add "{right}" to allow of this [[inference.client]], if it shall',
            )
        return caller


def _is_local(request: web.BaseRequest) -> bool:
    """Whether he came in by the gateway's own Unix socket, which only its user and root can open."""
    transport = request.transport
    return transport is not None and isinstance(transport.get_extra_info("sockname"), str | bytes)


def _read(client: str, place: Secret) -> str:
    secret = place.read()
    if len(secret) < SECRET_MIN:
        raise GatewayError(
            "FF-INFER-017",
            f'the secret of client "{client}" has {len(secret)} characters, expected at least {SECRET_MIN}',
            hint="make one: openssl rand -hex 32",
        )
    return secret


def _unproved(name: str) -> RefusalError:
    return RefusalError(
        401,
        "FF-INFER-021",
        f'no client "{name}" here, or the signature is not by its secret over this very request',
        hint="compare name, secret and the nine lines that are signed with docs/inference.md",
    )
