"""SM2 by the system's OpenSSL, 3.0 or newer: the `cryptography` wheel carries the code too, but no interface to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from cffi import FFI

from trust.keys import PrivateKey, PublicKey
from trust.providers import Buffer

_USER_ID = b"1234567812345678"  # GB/T 35276, RFC 8998 §3.2.1

_ffi = FFI()
_ffi.cdef("""
    typedef ... EVP_PKEY;
    typedef ... EVP_PKEY_CTX;
    typedef ... EVP_MD_CTX;
    typedef ... EVP_MD;
    typedef ... PKCS8_PRIV_KEY_INFO;
    const char *OpenSSL_version(int what);
    void ERR_clear_error(void);
    EVP_PKEY *EVP_PKEY_Q_keygen(void *libctx, const char *properties, const char *type, ...);
    EVP_PKEY *d2i_AutoPrivateKey(EVP_PKEY **key, const unsigned char **der, long size);
    EVP_PKEY *d2i_PUBKEY(EVP_PKEY **key, const unsigned char **der, long size);
    PKCS8_PRIV_KEY_INFO *EVP_PKEY2PKCS8(const EVP_PKEY *key);
    int i2d_PKCS8_PRIV_KEY_INFO(const PKCS8_PRIV_KEY_INFO *info, unsigned char **der);
    void PKCS8_PRIV_KEY_INFO_free(PKCS8_PRIV_KEY_INFO *info);
    void EVP_PKEY_free(EVP_PKEY *key);
    const EVP_MD *EVP_sm3(void);
    EVP_MD_CTX *EVP_MD_CTX_new(void);
    void EVP_MD_CTX_free(EVP_MD_CTX *ctx);
    int EVP_DigestSignInit(EVP_MD_CTX *ctx, EVP_PKEY_CTX **pctx, const EVP_MD *md, void *engine, EVP_PKEY *key);
    int EVP_DigestVerifyInit(EVP_MD_CTX *ctx, EVP_PKEY_CTX **pctx, const EVP_MD *md, void *engine, EVP_PKEY *key);
    int EVP_PKEY_CTX_set1_id(EVP_PKEY_CTX *ctx, const void *id, int size);
    int EVP_DigestSign(EVP_MD_CTX *ctx, unsigned char *signature, size_t *size, const void *message, size_t length);
    int EVP_DigestVerify(EVP_MD_CTX *ctx, const void *signature, size_t size, const void *message, size_t length);
    EVP_PKEY_CTX *EVP_PKEY_CTX_new(EVP_PKEY *key, void *engine);
    void EVP_PKEY_CTX_free(EVP_PKEY_CTX *ctx);
    int EVP_PKEY_encrypt_init(EVP_PKEY_CTX *ctx);
    int EVP_PKEY_encrypt(EVP_PKEY_CTX *ctx, unsigned char *out, size_t *size, const void *in, size_t length);
    int EVP_PKEY_decrypt_init(EVP_PKEY_CTX *ctx);
    int EVP_PKEY_decrypt(EVP_PKEY_CTX *ctx, unsigned char *out, size_t *size, const void *in, size_t length);
""")


def sm2() -> Libcrypto:
    """Raises OSError where there is no libcrypto.so.3."""
    return Libcrypto()


class Libcrypto:
    """Keys are parsed once and kept; every operation has a context of its own, so threads may share this."""

    def __init__(self) -> None:
        self._lib = _ffi.dlopen("libcrypto.so.3")
        self.about = " ".join(_ffi.string(self._lib.OpenSSL_version(0)).decode().split()[:2])
        self._private = lru_cache(maxsize=16)(lambda der: self._parse(self._lib.d2i_AutoPrivateKey, der))
        self._public = lru_cache(maxsize=1024)(lambda der: self._parse(self._lib.d2i_PUBKEY, der))

    def generate(self) -> PrivateKey:
        lib = self._lib
        key = self._own(lib.EVP_PKEY_Q_keygen(_ffi.NULL, _ffi.NULL, b"SM2"), lib.EVP_PKEY_free)
        info = self._own(lib.EVP_PKEY2PKCS8(key), lib.PKCS8_PRIV_KEY_INFO_free)
        out = _ffi.new("unsigned char[]", self._positive(lib.i2d_PKCS8_PRIV_KEY_INFO(info, _ffi.NULL)))
        self._positive(lib.i2d_PKCS8_PRIV_KEY_INFO(info, _ffi.new("unsigned char **", out)))
        return PrivateKey.from_pkcs8("gm", bytes(_ffi.buffer(out)))

    def sign(self, private: PrivateKey, message: Buffer) -> bytes:
        lib = self._lib
        ctx = self._digest(lib.EVP_DigestSignInit, self._private(private.pkcs8))
        source = _ffi.from_buffer(message)
        return self._sized(96, lambda out, size: lib.EVP_DigestSign(ctx, out, size, source, len(source)))

    def verify(self, public: PublicKey, message: Buffer, signature: bytes) -> bool:
        ctx = self._digest(self._lib.EVP_DigestVerifyInit, self._public(public.spki))
        source = _ffi.from_buffer(message)
        good = self._lib.EVP_DigestVerify(ctx, signature, len(signature), source, len(source)) == 1
        self._lib.ERR_clear_error()
        return bool(good)

    def encrypt(self, public: PublicKey, data: bytes) -> bytes:
        lib = self._lib
        ctx = self._own(lib.EVP_PKEY_CTX_new(self._public(public.spki), _ffi.NULL), lib.EVP_PKEY_CTX_free)
        self._positive(lib.EVP_PKEY_encrypt_init(ctx))
        return self._sized(len(data) + 128, lambda out, size: lib.EVP_PKEY_encrypt(ctx, out, size, data, len(data)))

    def decrypt(self, private: PrivateKey, sealed: bytes) -> bytes | None:
        lib = self._lib
        ctx = self._own(lib.EVP_PKEY_CTX_new(self._private(private.pkcs8), _ffi.NULL), lib.EVP_PKEY_CTX_free)
        self._positive(lib.EVP_PKEY_decrypt_init(ctx))
        try:
            return self._sized(len(sealed), lambda out, size: lib.EVP_PKEY_decrypt(ctx, out, size, sealed, len(sealed)))
        except ArithmeticError:
            return None

    def _digest(self, init: Callable[..., int], key: object) -> object:
        ctx = self._own(self._lib.EVP_MD_CTX_new(), self._lib.EVP_MD_CTX_free)
        pctx = _ffi.new("EVP_PKEY_CTX **")
        self._positive(init(ctx, pctx, self._lib.EVP_sm3(), _ffi.NULL, key))
        self._positive(self._lib.EVP_PKEY_CTX_set1_id(pctx[0], _USER_ID, len(_USER_ID)))
        return ctx

    def _parse(self, parser: Callable[..., object], der: bytes) -> object:
        start = _ffi.new("const unsigned char **", _ffi.from_buffer("const unsigned char[]", der))
        return self._own(parser(_ffi.NULL, start, len(der)), self._lib.EVP_PKEY_free)

    def _sized(self, room: int, fill: Callable[[object, Any], int]) -> bytes:
        out, size = _ffi.new("unsigned char[]", room), _ffi.new("size_t *", room)
        self._positive(fill(out, size))
        return bytes(_ffi.buffer(out, size[0]))

    def _own(self, pointer: object, free: object) -> object:
        if pointer == _ffi.NULL:
            self._lib.ERR_clear_error()
            raise ArithmeticError("libcrypto refused a key")
        return _ffi.gc(pointer, free)

    def _positive(self, result: int) -> int:
        if result <= 0:
            self._lib.ERR_clear_error()
            raise ArithmeticError("libcrypto refused an operation")
        return result
