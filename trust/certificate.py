"""Making X.509 certificates and revocation lists in both suites, and reading public keys out of them.

`cryptography` builds X.509 but has no SM2. The DER of an SM2 certificate differs from that of a P-256 one in three places of equal
length: the public key, the name of the signature algorithm, the signature. So every certificate is built for a throw-away P-256
key, those places are replaced, and our own key signs the result, in both suites alike.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import crypto

from trust.keys import PrivateKey, PublicKey, SuiteName
from trust.suite import suite

_ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")  # RFC 5758
_SIGNATURE: dict[SuiteName, bytes] = {
    "gm": bytes.fromhex("300a06082a811ccf55018375"),  # SM2-with-SM3, 1.2.156.10197.1.501, GM/T 0006
    "intl": _ECDSA_WITH_SHA256,
}


@dataclass(frozen=True)
class Subject:
    """The subject of a certificate: CN, OU, O."""

    name: str
    role: str
    organisation: str

    def x509(self) -> x509.Name:
        parts = [
            (NameOID.ORGANIZATION_NAME, self.organisation),
            (NameOID.ORGANIZATIONAL_UNIT_NAME, self.role),
            (NameOID.COMMON_NAME, self.name),
        ]
        return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts])


@dataclass(frozen=True)
class Draft:
    """What a certificate is to say, but for who signs it."""

    subject: Subject
    public: PublicKey
    serial: int
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True)
class Issuer:
    """A CA: its key, and its certificate in PEM."""

    private: PrivateKey
    certificate: bytes


def authority(private: PrivateKey, draft: Draft) -> bytes:
    """A self-signed CA certificate in PEM that may issue for participants only (path length 0)."""
    builder = _builder(draft, draft.subject.x509())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(ca=True), critical=True)
    return _signed(builder, draft.public, private)


def participant(issuer: Issuer, draft: Draft, names: x509.SubjectAlternativeName) -> bytes:
    """A certificate in PEM for a participant, as client and as server, with ``names`` as subjectAltName (RFC 5280)."""
    parent = x509.load_pem_x509_certificate(issuer.certificate)
    builder = _builder(draft, parent.subject)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(ca=False), critical=True)
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    builder = builder.add_extension(names, critical=False)
    builder = builder.add_extension(_authority_identifier(issuer), critical=False)
    return _signed(builder, draft.public, issuer.private)


def revocation_list(
    issuer: Issuer, revoked: Iterable[tuple[int, datetime]], number: int, now: datetime, next_update: datetime
) -> bytes:
    """A CRL in PEM (RFC 5280 §5) of (serial, time of revocation)."""
    parent = x509.load_pem_x509_certificate(issuer.certificate)
    builder = x509.CertificateRevocationListBuilder(parent.subject, now, next_update)
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    builder = builder.add_extension(_authority_identifier(issuer), critical=False)
    for serial, when in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when).build()
        builder = builder.add_revoked_certificate(entry)
    listed = builder.sign(_placeholder(), hashes.SHA256())
    return _resigned("X509 CRL", listed.tbs_certlist_bytes, issuer.private)


def public_key(certificate: bytes, suite: SuiteName) -> PublicKey:
    """The public key in a PEM certificate. Raises TrustError where it is not of ``suite``."""
    key = crypto.load_certificate(crypto.FILETYPE_PEM, certificate).get_pubkey()
    return PublicKey.from_spki(suite, crypto.dump_publickey(crypto.FILETYPE_ASN1, key))


def _builder(draft: Draft, issuer: x509.Name) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(issuer, draft.subject.x509(), serial_number=draft.serial)
        .not_valid_before(draft.not_before)
        .not_valid_after(draft.not_after)
        .add_extension(x509.SubjectKeyIdentifier(_identifier(draft.public)), critical=False)
    )


def _identifier(public: PublicKey) -> bytes:
    return suite(public.suite).digest(public.point)[:20]  # RFC 7093 §2, method 1


def _authority_identifier(issuer: Issuer) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier(_identifier(issuer.private.public), None, None)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=not ca,
        key_encipherment=not ca,
        data_encipherment=False,
        key_agreement=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _placeholder() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _signed(builder: x509.CertificateBuilder, public: PublicKey, private: PrivateKey) -> bytes:
    placeholder = _placeholder()
    certificate = builder.public_key(placeholder.public_key()).sign(placeholder, hashes.SHA256())
    spki = placeholder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return _resigned("CERTIFICATE", _replace(certificate.tbs_certificate_bytes, spki, public.spki), private)


def _resigned(label: str, tbs: bytes, private: PrivateKey) -> bytes:
    algorithm = _SIGNATURE[private.suite]
    tbs = _replace(tbs, _ECDSA_WITH_SHA256, algorithm)
    signature = suite(private.suite).sign(private, tbs)
    text = base64.encodebytes(_der(0x30, tbs + algorithm + _der(0x03, b"\0" + signature))).decode()
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n".encode()


def _replace(der: bytes, old: bytes, new: bytes) -> bytes:
    """Lengths in the DER around it hold only while the replacement is as long, and it must hit the one right place."""
    if len(old) != len(new) or der.count(old) != 1:
        raise AssertionError("expected exactly one place of equal length to replace")
    return der.replace(old, new)


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
