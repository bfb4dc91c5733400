"""The examples printed in the standards, computed by every provider."""

from __future__ import annotations

from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from cryptography.hazmat.primitives.ciphers.modes import ECB
from gmssl.sm4 import SM4_ENCRYPT, CryptSM4

from trust import providers
from trust.keys import PrivateKey, PublicKey
from trust.providers import Bulk, Sm2, gmssl

KEY = bytes.fromhex("0123456789abcdeffedcba9876543210")

# GB/T 32918.5-2017, Annexes A and C: one key pair serves both examples
SECRET = bytes.fromhex("3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8")
POINT = bytes.fromhex(
    "0409f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020"
    "ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13"
)
PRIVATE = PrivateKey("gm", SECRET, PublicKey("gm", POINT))
R = 0xF5A03B0648D2C4630EEAC513E1BB81A15944DA3827D5B74143AC7EACEEE720B3
S = 0xB1B6AA29DF212FD8763182BC0D421CA1BB9038FD1F7F42D4840B69C485BBC1AA
NONCE = 0x59276E27D506861A16680F3AD9C02DCCEF3CC1FA3CDBE4CE6D54B80DEAC1BC21
C1X = 0x04EBFC718E8D1798620432268E77FEB6415E2EDE0E073C0F4F640ECD2E149A73
C1Y = 0xE858F9D81E5430A57B36DAAB8F950A3C64E6EE6A63094D99283AFF767E124DF0
C3 = "59983c18f809e262923c53aec295d30383b54e39d609d160afcb1908d0bd8766"
C2 = "21886ca989ca9c7d58087307ca93092d651efa"


@pytest.fixture(params=providers.BULK)
def bulk(request: pytest.FixtureRequest) -> Bulk:
    return cast("Bulk", providers.load(request.param, "bulk"))


@pytest.fixture(params=providers.SM2)
def sm2(request: pytest.FixtureRequest) -> Sm2:
    return cast("Sm2", providers.load(request.param, "sm2"))


@pytest.mark.clause("9.4.1.3b")
@pytest.mark.clause("9.4.1.2e")
@pytest.mark.parametrize(
    ("message", "digest"),
    [
        (b"abc", "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"),
        (b"abcd" * 16, "debe9ff92275b8a138604889c18e5a4d6fdb70e5387e5765293dcba39c0c5732"),
    ],
)
def test_sm3_examples_of_gbt_32905(bulk: Bulk, message: bytes, digest: str) -> None:
    hasher = bulk.hasher()
    hasher.update(message[:2])
    hasher.update(message[2:])
    assert hasher.digest().hex() == digest


@pytest.mark.clause("9.4.1.3b")
def test_sm4_example_of_gbt_32907() -> None:
    """The block cipher alone; the GCM of libgcrypt is compared with both of these elsewhere."""
    expected = "681edf34d206965e86b3e94f536e4246"
    assert Cipher(SM4(KEY), ECB()).encryptor().update(KEY).hex() == expected
    block = CryptSM4()
    block.set_key(KEY, SM4_ENCRYPT)
    assert bytes(block.one_round(block.sk, list(KEY))).hex() == expected


@pytest.mark.clause("9.4.1.3b")
def test_sm4_gcm_example_of_rfc_8998(bulk: Bulk) -> None:
    plaintext = bytes.fromhex("aa" * 8 + "bb" * 8 + "cc" * 8 + "dd" * 8 + "ee" * 8 + "ff" * 8 + "ee" * 8 + "aa" * 8)
    nonce, aad = bytes.fromhex("00001234567800000000abcd"), bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    out = bytearray(len(plaintext) + 16)
    bulk.encrypt_into(KEY, nonce, plaintext, aad, memoryview(out))
    assert out.hex() == (
        "17f399f08c67d5ee19d0dc9969c4bb7d5fd46fd3756489069157b282bb200735"
        "d82710ca5c22f0ccfa7cbf93d496ac15a56834cbcf98c397b4024a2691233b8d"
        "83de3541e4c2b58177e065a9bf7b62ec"
    )
    back = bytearray(len(plaintext))
    assert bulk.decrypt_into(KEY, nonce, bytes(out), aad, memoryview(back))
    assert back == plaintext


@pytest.mark.clause("9.4.1.3b")
@pytest.mark.clause("9.4.1.2e")
def test_sm2_signature_of_gbt_32918(sm2: Sm2) -> None:
    signature = encode_dss_signature(R, S)
    assert sm2.verify(PRIVATE.public, b"message digest", signature)
    assert not sm2.verify(PRIVATE.public, b"message digesT", signature)
    assert not sm2.verify(PRIVATE.public, b"message digest", encode_dss_signature(R, S ^ 1))


def test_sm2_signing_of_gbt_32918(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the random number of the example the signature is the example's; only gmssl lets us choose it."""
    monkeypatch.setattr(gmssl, "_random", lambda: NONCE)
    assert decode_dss_signature(gmssl.GmsslSm2().sign(PRIVATE, b"message digest")) == (R, S)


@pytest.mark.clause("9.4.1.3b")
def test_sm2_encryption_of_gbt_32918(sm2: Sm2) -> None:
    c1 = encode_dss_signature(C1X, C1Y)  # two INTEGERs in a SEQUENCE, like a signature
    inside = c1[2:] + b"\x04\x20" + bytes.fromhex(C3) + b"\x04" + bytes([len(C2) // 2]) + bytes.fromhex(C2)
    assert sm2.decrypt(PRIVATE, b"\x30" + _length(inside) + inside) == b"encryption standard"


def _length(data: bytes) -> bytes:
    return bytes([len(data)]) if len(data) < 128 else b"\x81" + bytes([len(data)])
