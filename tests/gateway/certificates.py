"""A small CA for tests of TLS: its certificates name hosts and clients as a plant's own PKI would."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Certificates:
    """Files in ``folder``: ``ca`` and, for each name asked for, a certificate and its key."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.ca = folder / "ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("Plant CA")
        self.ca.write_bytes(_pem(self._signed(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))))

    def of(self, name: str) -> Path:
        """Certificate of this host or client; made at the first call."""
        path = self._folder / f"{name}.crt"
        if not path.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            kind, format_ = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
            self.key(name).write_bytes(key.private_bytes(kind, format_, serialization.NoEncryption()))
            self.key(name).chmod(0o600)
            path.write_bytes(_pem(self._signed(_named(name), key, x509.SubjectAlternativeName([_general(name)]))))
        return path

    def key(self, name: str) -> Path:
        """Where its key is."""
        return self._folder / f"{name}.key"

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .sign(self._key, hashes.SHA256())
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
