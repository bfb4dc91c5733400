"""SM4-GCM and SM3 by the OpenSSL 4 inside the `cryptography` wheel: where libgcrypt is absent or too old."""

from __future__ import annotations

from importlib.metadata import version

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.hashes import SM3, Hash

from trust.providers import Buffer


def bulk() -> Openssl:
    """Raises ArithmeticError where `cryptography` was built on an OpenSSL without the national algorithms."""
    try:
        Hash(SM3())
        Cipher(SM4(bytes(16)), GCM(bytes(12))).encryptor()
    except UnsupportedAlgorithm as error:
        raise ArithmeticError(str(error)) from error
    return Openssl()


class Openssl:
    """The public interface of `cryptography`, which releases the interpreter lock for large data."""

    about = f"cryptography {version('cryptography')}"

    def hasher(self) -> Sm3:
        return Sm3()

    def encrypt_into(self, key: bytes, nonce: bytes, plaintext: Buffer, aad: bytes, out: memoryview) -> None:
        encryptor = Cipher(SM4(key), GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(aad)
        encryptor.update_into(memoryview(plaintext).cast("B"), out[:-16])
        encryptor.finalize()
        out[-16:] = encryptor.tag

    def decrypt_into(self, key: bytes, nonce: bytes, sealed: Buffer, aad: bytes, out: memoryview) -> bool:
        view = memoryview(sealed).cast("B")
        decryptor = Cipher(SM4(key), GCM(nonce, bytes(view[-16:]))).decryptor()
        decryptor.authenticate_additional_data(aad)
        decryptor.update_into(view[:-16], out)
        try:
            decryptor.finalize()
        except InvalidTag:
            return False
        return True


class Sm3:
    """A running SM3 digest."""

    def __init__(self) -> None:
        self._hash = Hash(SM3())

    def update(self, data: Buffer, /) -> None:
        self._hash.update(memoryview(data).cast("B"))

    def digest(self) -> bytes:
        return self._hash.copy().finalize()
