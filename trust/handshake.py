"""What both suites do alike when a handshake fails: tell the peer, say why in the log, raise an error that says what to do."""

from __future__ import annotations

import ssl

import structlog

from trust.errors import TrustError

_log = structlog.get_logger("trust.tls")


class Handshake:
    """A TLS object between memory buffers whose refusals reach the peer.

    asyncio drops the connection the moment `do_handshake` raises, the alert still unsent, and the peer would see a hang-up without
    a reason. So the listening side asks for more data first, which makes asyncio send the alert, and raises when it is asked again.
    """

    server_side: bool
    _refused: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        """Raises SSLWantReadError until done, SSLCertVerificationError where the peer's certificate does not hold."""
        if self._refused is not None:
            raise self._refused
        try:
            self._shake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLEOFError):
            raise
        except ssl.SSLError as error:
            if not self.server_side:
                raise
            _log.warning("tls client refused", reason=error.strerror)
            self._refused = error
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the alert is on its way") from error
        try:
            self._check()
        except TrustError as error:
            if self.server_side:
                _log.warning("tls client refused", reason=str(error))
            raise ssl.SSLCertVerificationError(1, str(error)) from error

    def _shake(self) -> None:
        """A step of the handshake."""
        raise NotImplementedError

    def _check(self) -> None:
        """What is left to check of the peer's certificate after the handshake. Raises TrustError."""
        raise NotImplementedError


def handshake_failed(reasons: str) -> TrustError:
    """TLS found no common ground, or the peer refused us."""
    return TrustError(
        "FF-TLS-001",
        f"the TLS connection failed: {reasons}",
        hint="both sides need the same `[trust] suite` and valid certificates of one CA; the peer's log says what it refused",
    )
