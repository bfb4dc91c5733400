"""SM2, SM3 and SM4 by gmssl, pure Python: a thousand times slower, there so that nothing depends on one library being right.

gmssl's own SM2 functions draw their randomness from a predictable generator, do not check the digest when decrypting, and mangle
public keys that begin with certain digits; so only its arithmetic is used here. It is not constant in time.
"""

from __future__ import annotations

import hmac
import secrets
from importlib.metadata import version
from typing import Any, cast

from Cryptodome.Util.asn1 import DerOctetString, DerSequence
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from gmssl.sm2 import CryptSM2, default_ecc_table
from gmssl.sm3 import sm3_hash
from gmssl.sm4 import SM4_ENCRYPT, CryptSM4

from trust.keys import PrivateKey, PublicKey
from trust.providers import Buffer

_P, _A, _B, _N = (int(default_ecc_table[name], 16) for name in "pabn")
_G = bytes.fromhex(default_ecc_table["g"])
_USER = b"\x00\x80" + b"1234567812345678"  # the default user id, behind its length in bits


def bulk() -> Gmssl:
    """Always there: gmssl is a dependency of fedfab."""
    return Gmssl()


def sm2() -> GmsslSm2:
    """Always there: gmssl is a dependency of fedfab."""
    return GmsslSm2()


class Gmssl:
    """gmssl's SM4 block cipher in GCM (NIST SP 800-38D), and its SM3."""

    about = f"gmssl {version('gmssl')}"

    def hasher(self) -> Sm3:
        return Sm3()

    def encrypt_into(self, key: bytes, nonce: bytes, plaintext: Buffer, aad: bytes, out: memoryview) -> None:
        gcm = _Gcm(key, nonce)
        out[:-16] = gcm.crypt(bytes(plaintext))
        out[-16:] = gcm.tag(aad, bytes(out[:-16]))

    def decrypt_into(self, key: bytes, nonce: bytes, sealed: Buffer, aad: bytes, out: memoryview) -> bool:
        gcm, data = _Gcm(key, nonce), bytes(sealed)
        if not hmac.compare_digest(gcm.tag(aad, data[:-16]), data[-16:]):
            return False
        out[:] = gcm.crypt(data[:-16])
        return True


class Sm3:
    """A running SM3 digest; gmssl digests only whole messages, so it keeps them."""

    def __init__(self) -> None:
        self._data = bytearray()

    def update(self, data: Buffer, /) -> None:
        self._data += data

    def digest(self) -> bytes:
        return _sm3(bytes(self._data))


class GmsslSm2:
    """SM2 (GB/T 32918.2 and .4) on gmssl's curve arithmetic, with the operating system's randomness."""

    about = f"gmssl {version('gmssl')}"

    def generate(self) -> PrivateKey:
        scalar = _random()
        return PrivateKey("gm", scalar.to_bytes(32, "big"), PublicKey("gm", b"\x04" + _times(scalar, _G)))

    def sign(self, private: PrivateKey, message: Buffer) -> bytes:
        signer = CryptSM2(private.scalar.hex(), "", asn1=True)
        while True:
            signature = signer.sign(_to_sign(private.public, message), f"{_random():064x}")
            if signature is not None:
                return bytes.fromhex(signature)

    def verify(self, public: PublicKey, message: Buffer, signature: bytes) -> bool:
        verifier = CryptSM2("", "")
        verifier.public_key = public.point[1:].hex()
        try:
            r, s = decode_dss_signature(signature)
            if not (0 < r < _N and 0 < s < _N and _on_curve(public.point[1:])):
                return False
            return bool(verifier.verify(f"{r:064x}{s:064x}", _to_sign(public, message)))
        except (ValueError, TypeError):  # TypeError: gmssl met the point at infinity
            return False

    def encrypt(self, public: PublicKey, data: bytes) -> bytes:
        k = _random()
        c1, shared = _times(k, _G), _times(k, public.point[1:])
        c3 = _sm3(shared[:32] + data + shared[32:])
        ciphertext = DerSequence([int.from_bytes(c1[:32], "big"), int.from_bytes(c1[32:], "big")])
        ciphertext.append(DerOctetString(c3))
        ciphertext.append(DerOctetString(_mask(shared, data)))
        return ciphertext.encode()

    def decrypt(self, private: PrivateKey, sealed: bytes) -> bytes | None:
        try:
            x, y, c3, c2 = cast("Any", DerSequence().decode(sealed, strict=True))
            c1 = x.to_bytes(32, "big") + y.to_bytes(32, "big")
            if not _on_curve(c1):
                return None
            shared = _times(int.from_bytes(private.scalar, "big"), c1)
            data = _mask(shared, DerOctetString().decode(c2).payload)
            digest = DerOctetString().decode(c3).payload
        except (ValueError, TypeError, OverflowError, AttributeError):
            return None
        return data if hmac.compare_digest(_sm3(shared[:32] + data + shared[32:]), digest) else None


class _Gcm:
    def __init__(self, key: bytes, nonce: bytes) -> None:
        self._cipher = CryptSM4()
        self._cipher.set_key(key, SM4_ENCRYPT)
        self._nonce, self._h = nonce, int.from_bytes(self._block(bytes(16)), "big")

    def crypt(self, data: bytes) -> bytes:
        blocks = -(-len(data) // 16)
        stream = b"".join(self._block(self._nonce + (i + 2).to_bytes(4, "big")) for i in range(blocks))
        return _xor(data, stream[: len(data)])

    def tag(self, aad: bytes, ciphertext: bytes) -> bytes:
        lengths = (8 * len(aad)).to_bytes(8, "big") + (8 * len(ciphertext)).to_bytes(8, "big")
        data = _padded(aad) + _padded(ciphertext) + lengths
        state = 0
        for i in range(0, len(data), 16):
            state = _multiply(state ^ int.from_bytes(data[i : i + 16], "big"), self._h)
        return _xor(state.to_bytes(16, "big"), self._block(self._nonce + b"\0\0\0\1"))

    def _block(self, data: bytes) -> bytes:
        return bytes(self._cipher.one_round(self._cipher.sk, list(data)))


def _multiply(x: int, y: int) -> int:
    """In GF(2^128) with the bit order of GCM."""
    product = 0
    for bit in range(127, -1, -1):
        if x >> bit & 1:
            product ^= y
        y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
    return product


def _sm3(data: bytes) -> bytes:
    return bytes.fromhex(sm3_hash(list(data)))


def _to_sign(public: PublicKey, message: Buffer) -> bytes:
    curve = _A.to_bytes(32, "big") + _B.to_bytes(32, "big") + _G
    return _sm3(_sm3(_USER + curve + public.point[1:]) + bytes(message))


def _mask(shared: bytes, data: bytes) -> bytes:
    """``data`` under the key derived from the shared point (GB/T 32918.4 §5.4.3)."""
    stream = b"".join(_sm3(shared + i.to_bytes(4, "big")) for i in range(1, -(-len(data) // 32) + 1))
    return _xor(data, stream[: len(data)])


def _times(k: int, point: bytes) -> bytes:
    return bytes.fromhex(CryptSM2("", "")._kg(k, point.hex()))


def _on_curve(point: bytes) -> bool:
    x, y = int.from_bytes(point[:32], "big"), int.from_bytes(point[32:], "big")
    return x < _P and y < _P and (y * y - x * x * x - _A * x - _B) % _P == 0


def _random() -> int:
    return secrets.randbelow(_N - 2) + 1


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 16)


def _xor(a: bytes, b: bytes) -> bytes:
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).to_bytes(len(a), "big")
