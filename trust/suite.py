"""The two families of algorithms behind one interface: ``gm`` (SM2, SM3, SM4-GCM) and ``intl`` (P-256, SHA-256, AES-256-GCM).

No state but the libraries' own; everything may be called from many threads.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from abc import ABC, abstractmethod
from functools import cache, lru_cache
from typing import cast

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from trust import providers as national
from trust.errors import TrustError
from trust.keys import PrivateKey, PublicKey, SuiteName
from trust.providers import Buffer, Hasher

TAG_BYTES = 16
NONCE_BYTES = 12
_INNER, _OUTER = bytes(byte ^ 0x36 for byte in range(256)), bytes(byte ^ 0x5C for byte in range(256))
"""Each byte as HMAC's inner and outer key has it."""


class Suite(ABC):
    """What a room needs of cryptography. Errors are TrustError."""

    name: SuiteName
    key_bytes: int  # of the block cipher
    digest_bytes = 32

    @abstractmethod
    def hasher(self) -> Hasher:
        """A running digest."""

    def digest(self, data: Buffer) -> bytes:
        """SM3 or SHA-256 of ``data``, 32 bytes."""
        hasher = self.hasher()
        hasher.update(data)
        return hasher.digest()

    def hmac(self, key: bytes, data: Buffer) -> bytes:
        """HMAC (RFC 2104, GB/T 15852.2) with the suite's digest, 32 bytes."""
        block = (self.digest(key) if len(key) > 64 else key).ljust(64, b"\0")
        inner, outer = self.hasher(), self.hasher()
        inner.update(block.translate(_INNER))
        inner.update(data)
        outer.update(block.translate(_OUTER))
        outer.update(inner.digest())
        return outer.digest()

    @abstractmethod
    def encrypt_into(self, key: bytes, nonce: bytes, plaintext: Buffer, aad: bytes, out: memoryview) -> None:
        """Fill ``out`` (len(plaintext) + 16 bytes) with ciphertext || tag. A nonce of 12 bytes is used once per key."""

    @abstractmethod
    def decrypt_into(self, key: bytes, nonce: bytes, sealed: Buffer, aad: bytes, out: memoryview) -> None:
        """Fill ``out`` (len(sealed) - 16 bytes). Raises TrustError on any change; then ``out`` must not be used."""

    def encrypt(self, key: bytes, nonce: bytes, plaintext: Buffer, aad: bytes) -> bytes:
        """ciphertext || 16-byte tag."""
        out = bytearray(memoryview(plaintext).nbytes + TAG_BYTES)
        self.encrypt_into(key, nonce, plaintext, aad, memoryview(out))
        return bytes(out)

    def decrypt(self, key: bytes, nonce: bytes, sealed: Buffer, aad: bytes) -> bytes:
        """The plaintext. Raises TrustError where key, nonce, aad or ciphertext are not those of `encrypt`."""
        size = memoryview(sealed).nbytes - TAG_BYTES
        if size < 0:
            raise changed()
        out = bytearray(size)
        self.decrypt_into(key, nonce, sealed, aad, memoryview(out))
        return bytes(out)

    @abstractmethod
    def generate_key(self) -> PrivateKey:
        """A fresh key pair."""

    @abstractmethod
    def sign(self, private: PrivateKey, message: Buffer) -> bytes:
        """SM2-with-SM3 (user id 1234567812345678) or ECDSA-with-SHA-256, in DER."""

    @abstractmethod
    def verify(self, public: PublicKey, message: Buffer, signature: bytes) -> None:
        """Raises TrustError where ``signature`` over ``message`` is not by ``public``."""

    @abstractmethod
    def wrap(self, public: PublicKey, key: bytes) -> bytes:
        """``key`` encrypted so that only the holder of ``public`` reads it."""

    @abstractmethod
    def unwrap(self, private: PrivateKey, wrapped: bytes) -> bytes:
        """The key. Raises TrustError where it was wrapped for another or changed."""


@cache
def suite(name: SuiteName) -> Suite:
    """The suite of that name; the first call for ``gm`` chooses and tests the providers."""
    return Gm() if name == "gm" else Intl()


def providers() -> dict[str, str]:
    """Which library computes what in this process, with versions: for `fedfab version` and the auditor."""
    return {
        "SM2": national.sm2().about,
        "SM3, SM4-GCM": national.bulk().about,
        "P-256, AES-GCM": backend.openssl_version_text(),
        "SHA-256": ssl.OPENSSL_VERSION,
        "TLS gm": backend.openssl_version_text(),
        "TLS intl": ssl.OPENSSL_VERSION,
    }


class Gm(Suite):
    """SM2, SM3, SM4-GCM: GB/T 32918, 32905, 32907."""

    name: SuiteName = "gm"
    key_bytes = 16

    def __init__(self) -> None:
        self._bulk = national.bulk()
        self._sm2 = national.sm2()

    def hasher(self) -> Hasher:
        return self._bulk.hasher()

    def encrypt_into(self, key: bytes, nonce: bytes, plaintext: Buffer, aad: bytes, out: memoryview) -> None:
        self._bulk.encrypt_into(key, nonce, plaintext, aad, out)

    def decrypt_into(self, key: bytes, nonce: bytes, sealed: Buffer, aad: bytes, out: memoryview) -> None:
        if not self._bulk.decrypt_into(key, nonce, sealed, aad, out):
            raise changed()

    def generate_key(self) -> PrivateKey:
        return self._sm2.generate()

    def sign(self, private: PrivateKey, message: Buffer) -> bytes:
        return self._sm2.sign(private, message)

    def verify(self, public: PublicKey, message: Buffer, signature: bytes) -> None:
        if not self._sm2.verify(public, message, signature):
            raise forged()

    def wrap(self, public: PublicKey, key: bytes) -> bytes:
        return self._sm2.encrypt(public, key)

    def unwrap(self, private: PrivateKey, wrapped: bytes) -> bytes:
        key = self._sm2.decrypt(private, wrapped)
        if key is None:
            raise not_for_us()
        return key


class Intl(Suite):
    """P-256 ECDSA, SHA-256, AES-256-GCM; keys wrapped by ECIES: ephemeral ECDH, HKDF-SHA256, AES-256-GCM."""

    name: SuiteName = "intl"
    key_bytes = 32

    def hasher(self) -> Hasher:
        return hashlib.sha256()

    def hmac(self, key: bytes, data: Buffer) -> bytes:
        return hmac.digest(key, data, "sha256")

    def encrypt_into(self, key: bytes, nonce: bytes, plaintext: Buffer, aad: bytes, out: memoryview) -> None:
        AESGCM(key).encrypt_into(nonce, memoryview(plaintext).cast("B"), aad, out)

    def decrypt_into(self, key: bytes, nonce: bytes, sealed: Buffer, aad: bytes, out: memoryview) -> None:
        try:
            AESGCM(key).decrypt_into(nonce, memoryview(sealed).cast("B"), aad, out)
        except InvalidTag as error:
            raise changed() from error

    def generate_key(self) -> PrivateKey:
        return _from_native(ec.generate_private_key(ec.SECP256R1()))

    def sign(self, private: PrivateKey, message: Buffer) -> bytes:
        return _native_private(private).sign(bytes(message), ec.ECDSA(hashes.SHA256()))

    def verify(self, public: PublicKey, message: Buffer, signature: bytes) -> None:
        try:
            _native_public(public).verify(signature, bytes(message), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            raise forged() from error

    def wrap(self, public: PublicKey, key: bytes) -> bytes:
        once = self.generate_key()
        secret = _native_private(once).exchange(ec.ECDH(), _native_public(public))
        return once.public.point + self.encrypt(_wrapping_key(secret, once.public, public), bytes(12), key, b"")

    def unwrap(self, private: PrivateKey, wrapped: bytes) -> bytes:
        once = PublicKey("intl", wrapped[:65])
        try:
            secret = _native_private(private).exchange(ec.ECDH(), _native_public(once))
            return self.decrypt(_wrapping_key(secret, once, private.public), bytes(12), wrapped[65:], b"")
        except (ValueError, TrustError) as error:
            raise not_for_us() from error


def changed() -> TrustError:
    """What arrived is not what was sealed."""
    return TrustError(
        "FF-TRUST-010",
        "the content was changed on its way, or was sealed under another key",
        hint="the sender will send it again; if it comes back, look at what stands between the two ends",
    )


def forged() -> TrustError:
    """A signature that is not by the one who is said to have signed."""
    return TrustError(
        "FF-TRUST-011",
        "the signature is not by the one who is said to have signed, or what was signed has changed",
        hint="check that both sides hold the certificates that the CA issued last (`fedfab pki show`)",
    )


def not_for_us() -> TrustError:
    """A wrapped key that our private key does not open."""
    return TrustError(
        "FF-TRUST-012",
        "the one-time key was not wrapped for this private key, or was changed",
        hint="the sender may hold an older certificate of ours: let it fetch the participants again",
    )


def _wrapping_key(secret: bytes, once: PublicKey, recipient: PublicKey) -> bytes:
    info = b"fedfab key wrap v1" + once.point + recipient.point
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret)


@lru_cache(maxsize=16)
def _native_private(private: PrivateKey) -> ec.EllipticCurvePrivateKey:
    return cast("ec.EllipticCurvePrivateKey", serialization.load_der_private_key(private.pkcs8, None))


@lru_cache(maxsize=1024)
def _native_public(public: PublicKey) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public.point)


def _from_native(key: ec.EllipticCurvePrivateKey) -> PrivateKey:
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return PrivateKey.from_pkcs8("intl", der)
