"""Keys of both suites: points and scalars of a 256-bit curve, read from and written to PEM files that only their owner reads.

SM2 (GB/T 32918.5) and P-256 (FIPS 186-5) keys have the same shape in DER but for eight bytes, the name of the curve.
"""

from __future__ import annotations

import base64
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from common.files import write_atomic
from trust.errors import TrustError

SuiteName = Literal["gm", "intl"]

_CURVE: dict[SuiteName, bytes] = {
    "gm": bytes.fromhex("06082a811ccf5501822d"),  # 1.2.156.10197.1.301, GM/T 0006
    "intl": bytes.fromhex("06082a8648ce3d030107"),  # 1.2.840.10045.3.1.7, RFC 5480
}
_CURVE_NAME: dict[SuiteName, str] = {"gm": "SM2", "intl": "P-256"}
_EC_PUBLIC_KEY = bytes.fromhex("06072a8648ce3d0201")  # 1.2.840.10045.2.1
_PEM = re.compile(rb"-----BEGIN PRIVATE KEY-----\s+([A-Za-z0-9+/=\s]+)-----END PRIVATE KEY-----")


@dataclass(frozen=True)
class PublicKey:
    """A point of the suite's curve, uncompressed: ``04 || X || Y``, 65 bytes."""

    suite: SuiteName
    point: bytes

    @property
    def spki(self) -> bytes:
        """SubjectPublicKeyInfo in DER (RFC 5480), 91 bytes."""
        return _spki_prefix(self.suite) + self.point

    @classmethod
    def from_spki(cls, suite: SuiteName, der: bytes) -> PublicKey:
        """Raises TrustError where ``der`` is a key of another algorithm or curve."""
        prefix = _spki_prefix(suite)
        if not der.startswith(prefix) or len(der) != len(prefix) + 65 or der[len(prefix)] != 4:
            raise TrustError(
                "FF-TRUST-001",
                f"expected a public key on {_CURVE_NAME[suite]} (suite {suite}), got another kind of key",
                hint="use keys and certificates of one suite together; `fedfab pki show` prints the suite",
            )
        return cls(suite, der[len(prefix) :])


@dataclass(frozen=True)
class PrivateKey:
    """The secret number of a key pair, 32 bytes big-endian, and its public point. Never printed."""

    suite: SuiteName
    scalar: bytes = field(repr=False)
    public: PublicKey

    @property
    def pkcs8(self) -> bytes:
        """PrivateKeyInfo in DER (RFC 5208 with RFC 5915 inside), 138 bytes."""
        prefix, middle = _pkcs8_parts(self.suite)
        return prefix + self.scalar + middle + self.public.point

    @classmethod
    def from_pkcs8(cls, suite: SuiteName, der: bytes) -> PrivateKey:
        """Raises TrustError where ``der`` is not a PKCS#8 key with public point on the suite's curve."""
        prefix, middle = _pkcs8_parts(suite)
        scalar, point = der[len(prefix) : len(prefix) + 32], der[-65:]
        if der != prefix + scalar + middle + point or point[:1] != b"\x04":
            raise _not_a_key(suite)
        return cls(suite, scalar, PublicKey(suite, point))

    def pem(self) -> bytes:
        """PKCS#8 in PEM, not encrypted."""
        text = base64.b64encode(self.pkcs8).decode()
        lines = [text[i : i + 64] for i in range(0, len(text), 64)]
        return "\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----", ""]).encode()

    def save(self, path: Path) -> None:
        """Write the PEM with mode 0600, atomically."""
        write_atomic(path, self.pem(), mode=0o600)

    @classmethod
    def load(cls, path: Path, suite: SuiteName) -> PrivateKey:
        """Read a PEM that only its owner may read. Raises TrustError naming the file and what to do."""
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = path.read_bytes()
        except OSError as error:
            raise TrustError(
                "FF-TRUST-003",
                f"cannot read the key {path}: {error.strerror}",
                hint="check `[trust] identity` and that the daemon's user owns the folder",
            ) from error
        if mode & 0o077:
            raise TrustError(
                "FF-TRUST-004",
                f"the key {path} may be read by others: expected mode 0600, got {mode:04o}",
                hint=f"chmod 600 {path}; if someone may have read it, revoke it and issue a new one",
            )
        found = _PEM.search(text)
        try:
            return cls.from_pkcs8(suite, base64.b64decode(found[1] if found else b""))
        except (ValueError, TrustError) as error:
            raise _not_a_key(suite, f" in {path}") from error


def _not_a_key(suite: SuiteName, where: str = "") -> TrustError:
    return TrustError(
        "FF-TRUST-002",
        f"expected a PKCS#8 private key on {_CURVE_NAME[suite]} (suite {suite}) with its public key inside{where}",
        hint="take the key that `fedfab pki issue` wrote for this suite",
    )


def _spki_prefix(suite: SuiteName) -> bytes:
    return b"\x30\x59\x30\x13" + _EC_PUBLIC_KEY + _CURVE[suite] + b"\x03\x42\x00"


def _pkcs8_parts(suite: SuiteName) -> tuple[bytes, bytes]:
    head = bytes.fromhex("308187020100") + b"\x30\x13" + _EC_PUBLIC_KEY + _CURVE[suite]
    return head + bytes.fromhex("046d306b0201010420"), bytes.fromhex("a144034200")
