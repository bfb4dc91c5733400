"""Who computes SM2, SM3 and SM4: libraries behind two small contracts, chosen once, the fastest that passes its self-test first.

Bulk work (SM4-GCM, SM3): libgcrypt, then cryptography, then gmssl. SM2: the system's libcrypto, then gmssl.
``FEDFAB_SM_BULK`` and ``FEDFAB_SM2`` name one provider and so rule out the others; a test or an auditor does that.
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from typing import Protocol, cast

from trust.errors import TrustError
from trust.keys import PrivateKey, PublicKey

Buffer = bytes | bytearray | memoryview

BULK = ("libgcrypt", "cryptography", "gmssl")
SM2 = ("libcrypto", "gmssl")


class Hasher(Protocol):
    """A digest over data that comes in pieces."""

    def update(self, data: Buffer, /) -> None: ...
    def digest(self) -> bytes: ...


class Bulk(Protocol):
    """SM4-GCM (GB/T 32907, RFC 8998) and SM3 (GB/T 32905) for much data. Keys 16, nonces 12, tags 16 bytes."""

    @property
    def about(self) -> str:
        """Library and version."""

    def hasher(self) -> Hasher: ...

    def encrypt_into(self, key: bytes, nonce: bytes, plaintext: Buffer, aad: bytes, out: memoryview) -> None:
        """Fill ``out``, len(plaintext) + 16 bytes, with ciphertext || tag."""

    def decrypt_into(self, key: bytes, nonce: bytes, sealed: Buffer, aad: bytes, out: memoryview) -> bool:
        """Fill ``out``, len(sealed) - 16 bytes; False where the tag does not hold, and then ``out`` must not be used."""


class Sm2(Protocol):
    """SM2 (GB/T 32918) with the default user id 1234567812345678."""

    @property
    def about(self) -> str:
        """Library and version."""

    def generate(self) -> PrivateKey: ...
    def sign(self, private: PrivateKey, message: Buffer) -> bytes: ...
    def verify(self, public: PublicKey, message: Buffer, signature: bytes) -> bool: ...

    def encrypt(self, public: PublicKey, data: bytes) -> bytes:
        """SM2Ciphertext in DER: C1.x, C1.y, C3, C2 (GM/T 0009)."""

    def decrypt(self, private: PrivateKey, sealed: bytes) -> bytes | None:
        """The data, or None where ``sealed`` was not made for this key or was changed."""


@cache
def bulk() -> Bulk:
    """The provider of SM4 and SM3 in this process."""
    return cast("Bulk", _first("FEDFAB_SM_BULK", BULK, "bulk"))


@cache
def sm2() -> Sm2:
    """The provider of SM2 in this process."""
    return cast("Sm2", _first("FEDFAB_SM2", SM2, "sm2"))


@cache
def load(name: str, kind: str) -> object:
    """The provider ``name`` for ``kind`` ("bulk" or "sm2"), self-tested. Raises OSError, ImportError or ArithmeticError."""
    provider: object = getattr(importlib.import_module(f"trust.providers.{name}"), kind)()
    if kind == "bulk":
        _test_bulk(cast("Bulk", provider))
    else:
        _test_sm2(cast("Sm2", provider))
    return provider


def _first(variable: str, names: tuple[str, ...], kind: str) -> object:
    wanted = os.environ.get(variable)
    if wanted is not None and wanted not in names:
        raise TrustError(
            "FF-TRUST-005",
            f"{variable}={wanted}: expected one of {', '.join(names)}",
            hint=f"unset {variable} to let fedfab choose the fastest",
        )
    reasons = []
    for name in (wanted,) if wanted else names:
        try:
            return load(name, kind)
        except (OSError, ImportError, ArithmeticError, AttributeError) as error:
            reasons.append(f"{name}: {error}")
    raise TrustError(
        "FF-TRUST-006",
        f"no provider of national cryptography works here ({'; '.join(reasons)})",
        hint="install Debian's libgcrypt20 and libssl3, and the Python packages cryptography and gmssl",
    )


def _test_bulk(provider: Bulk) -> None:
    """GB/T 32905 example 1 and RFC 8998 A.1: a library that computes something else is no provider."""
    hasher = provider.hasher()
    hasher.update(b"abc")
    key = bytes.fromhex("0123456789abcdeffedcba9876543210")
    out = bytearray(64 + 16)
    provider.encrypt_into(
        key,
        bytes.fromhex("00001234567800000000abcd"),
        bytes.fromhex("aa" * 8 + "bb" * 8 + "cc" * 8 + "dd" * 8 + "ee" * 8 + "ff" * 8 + "ee" * 8 + "aa" * 8),
        bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
        memoryview(out),
    )
    if (
        hasher.digest().hex() != "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"
        or out[64:].hex() != "83de3541e4c2b58177e065a9bf7b62ec"
    ):
        raise ArithmeticError("the self-test of SM3 and SM4-GCM failed")


def _test_sm2(provider: Sm2) -> None:
    """The signature of GB/T 32918.5, Annex A, and one of its own."""
    point = bytes.fromhex(
        "0409f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020"
        "ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13"
    )
    signature = bytes.fromhex(
        "3046022100f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3"
        "022100b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa"
    )
    key = provider.generate()
    if not (
        provider.verify(PublicKey("gm", point), b"message digest", signature)
        and provider.verify(key.public, b"fedfab", provider.sign(key, b"fedfab"))
    ):
        raise ArithmeticError("the self-test of SM2 failed")
