"""TLS 1.3 with the national algorithms (RFC 8998) behind the interface of `ssl`, so that asyncio and aiohttp take it as their own.

The standard library's `ssl` runs on the system's OpenSSL and refuses SM2 certificates; the OpenSSL 4 inside `cryptography` speaks
TLS_SM4_GCM_SM3 with curveSM2 and sm2sig_sm3, and pyOpenSSL reaches it. asyncio asks its `SSLContext` for an object between two
memory buffers (`wrap_bio`), which is what `GmObject` is. Groups and signature algorithms have no public name in pyOpenSSL:
its two private ones stand in `_national_only` and in the pinned version.
"""

from __future__ import annotations

import ssl
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from trust.errors import TrustError
from trust.handshake import Handshake, handshake_failed
from trust.hostname import check_hostname
from trust.identity import Identity, TrustStore

_PIECE = 256 << 10  # bytes moved at once between the buffers; a TLS record holds 16 KiB
_RECORD = 16 << 10


class GmContext(ssl.SSLContext):
    """Mutual TLS 1.3 with nothing but TLS_SM4_GCM_SM3, curveSM2 and sm2sig_sm3, for one side of a connection."""

    _openssl: SSL.Context
    _trust: TrustStore

    @classmethod
    def create(cls, identity: Identity, trust: TrustStore, *, server: bool) -> GmContext:
        """A context for our end of connections, as server or as client."""
        self = cls(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        self._trust = trust
        self._openssl = context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_max_proto_version(SSL.TLS1_3_VERSION)
        context.set_options(SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        _national_only(context)
        context.use_certificate_file(str(identity.folder / "gm.crt"))
        context.use_privatekey_file(str(identity.folder / "gm.key"))
        context.check_privatekey()
        context.load_verify_locations(str(trust.ca))
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._verify)
        return self

    def wrap_bio(  # type: ignore[override]
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: object = None,
    ) -> GmObject:
        """What asyncio calls for every connection."""
        connection = SSL.Connection(self._openssl, None)
        name = server_hostname.decode() if isinstance(server_hostname, bytes) else server_hostname
        if server_side:
            connection.set_accept_state()
        else:
            connection.set_connect_state()
        return GmObject(self, connection, incoming, outgoing, name, server_side=server_side)

    def _verify(self, connection: SSL.Connection, certificate: crypto.X509, code: int, depth: int, good: int) -> bool:
        """OpenSSL asks for every certificate of the chain; the last word is the trust store's, whose files may be newer."""
        shown = certificate.to_cryptography()
        try:
            if not good:
                raise self._trust.refusal(code, shown.subject.rfc4514_string())
            if depth == 0:
                self._trust.verify(shown.public_bytes(Encoding.PEM))
        except TrustError as error:
            connection.set_app_data(error)
            return False
        return True


class GmObject(Handshake):
    """The part of `ssl.SSLObject` that asyncio uses, on a pyOpenSSL connection between memory buffers."""

    def __init__(
        self,
        context: GmContext,
        connection: SSL.Connection,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_hostname: str | None,
        *,
        server_side: bool,
    ) -> None:
        self.context, self.server_hostname, self.server_side, self.session = context, server_hostname, server_side, None
        self._connection, self._incoming, self._outgoing = connection, incoming, outgoing

    def read(self, size: int = _PIECE, buffer: memoryview | None = None) -> bytes | int:
        """Up to ``size`` bytes, b"" at the end, from as many records as are there; into ``buffer`` where given."""
        self._feed()
        pieces: list[bytes] = []
        missing = size if buffer is None else min(size, len(buffer))
        while missing > 0:
            try:
                piece = self._connection.recv(min(missing, _RECORD))
            except SSL.ZeroReturnError:
                break
            except SSL.Error as error:
                if pieces:
                    break
                raise self._failure(error) from None
            pieces.append(piece)
            missing -= len(piece)
        self._drain()
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if buffer is None:
            return data
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take all of ``data``: asyncio would copy what is left over, again for every part."""
        view = memoryview(data).cast("B")
        try:
            for start in range(0, len(view), _PIECE):
                self._connection.sendall(view[start : start + _PIECE])
                self._drain()
        except SSL.Error as error:
            raise self._failure(error) from None
        return len(view)

    def unwrap(self) -> None:
        """Close our side; raises SSLWantReadError until the peer has closed its own."""
        self._feed()
        try:
            closed = self._connection.shutdown()
        except SSL.ZeroReturnError:
            closed = True
        except SSL.Error as error:
            raise self._failure(error) from None
        finally:
            self._drain()
        if not closed:
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the peer has not closed yet")

    def getpeercert(self, binary_form: bool = False) -> bytes | dict[str, Any] | None:
        """The peer's certificate in DER; the dictionary form is empty."""
        return self._certificate().public_bytes(Encoding.DER) if binary_form else {}

    def cipher(self) -> tuple[str, str, int] | None:
        """Name, protocol and bits of the cipher in use."""
        name = self._connection.get_cipher_name()
        return (name, self._connection.get_protocol_version_name(), 128) if name else None

    def version(self) -> str:
        """The protocol version."""
        return self._connection.get_protocol_version_name()

    def compression(self) -> None:
        """TLS 1.3 has none."""

    def selected_alpn_protocol(self) -> None:
        """HTTP/1.1 needs none."""

    def pending(self) -> int:
        """Bytes decrypted and not read yet."""
        return self._connection.pending()

    def _shake(self) -> None:
        self._feed()
        try:
            self._connection.do_handshake()
        except SSL.Error as error:
            raise self._failure(error) from self._connection.get_app_data()
        finally:
            self._drain()

    def _check(self) -> None:
        if self.server_hostname is not None:
            check_hostname(self._certificate(), self.server_hostname)

    def _certificate(self) -> x509.Certificate:
        found = self._connection.get_peer_certificate(as_cryptography=True)
        if found is None:
            raise ssl.SSLError(1, "FF-TLS-001: the peer sent no certificate")
        return found

    def _feed(self) -> None:
        data = self._incoming.read()
        if data:
            self._connection.bio_write(data)
        elif self._incoming.eof:
            self._connection.bio_shutdown()

    def _drain(self) -> None:
        try:
            while True:
                self._outgoing.write(self._connection.bio_read(_PIECE))
        except SSL.WantReadError:
            return

    def _failure(self, error: SSL.Error) -> ssl.SSLError:
        if isinstance(error, SSL.WantReadError):
            return ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "more data is needed")
        refused = self._connection.get_app_data()
        if isinstance(refused, TrustError):
            return ssl.SSLCertVerificationError(1, str(refused))
        if isinstance(error, SSL.SysCallError):
            return ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the peer closed the connection without saying so")
        reasons = ", ".join(str(entry[-1]) for entry in error.args[0]) if error.args else "no reason given"
        return ssl.SSLError(1, str(handshake_failed(reasons)))


def _national_only(context: SSL.Context) -> None:
    context.set_tls13_ciphersuites(b"TLS_SM4_GCM_SM3")
    native, library = context._context, SSL._lib  # type: ignore[attr-defined]
    if not (
        library.SSL_CTX_set1_curves_list(native, b"curveSM2") == 1
        and library.SSL_CTX_set1_sigalgs_list(native, b"sm2sig_sm3") == 1
    ):
        raise TrustError(
            "FF-TLS-003",
            "the OpenSSL inside `cryptography` does not speak RFC 8998",
            hint='install the wheels that constraints.txt pins, or set `[trust] suite = "intl"`',
        )
