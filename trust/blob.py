"""Encryption of large content: once, under a fresh one-time key, in chunks that travel and resume one by one.

Chunk ``i`` is AEAD with nonce ``i`` and with its index, the size of the whole and the chunk size as associated data; its digest
stands in the manifest. So a chunk that is changed, moved, dropped, repeated or taken from another blob is refused, also when
the one who changed it holds the key (another recipient of the same broadcast). The manifest holds the key: it travels inside a
sealed message, never beside the chunks.
"""

from __future__ import annotations

import base64
import hmac
import itertools
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from trust.errors import TrustError
from trust.keys import SuiteName
from trust.providers import Buffer
from trust.suite import TAG_BYTES, Suite, suite

CHUNK_BYTES = 1 << 20  # four chunks for a million float32, so that every core has something to do


@dataclass(frozen=True)
class Manifest:
    """What opens a blob: the one-time key, the size of the plaintext in bytes, and one digest per sealed chunk."""

    suite: SuiteName
    key: bytes = field(repr=False)
    size: int
    chunk_bytes: int
    digests: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if self.size < 0 or self.chunk_bytes < 1 or len(self.key) != suite(self.suite).key_bytes:
            raise _bad_manifest("size, chunk size or length of the key are impossible")
        expected = chunk_count(self.size, self.chunk_bytes)
        if len(self.digests) != expected or any(len(digest) != 32 for digest in self.digests):
            raise _bad_manifest(f"expected {expected} digests of 32 bytes, got {len(self.digests)}")

    @property
    def sealed_size(self) -> int:
        """Bytes of all sealed chunks one after another."""
        return self.size + TAG_BYTES * len(self.digests)

    def to_json(self) -> dict[str, object]:
        """Plain data for a JSON message; bytes in base64."""
        return {
            "suite": self.suite,
            "key": base64.b64encode(self.key).decode(),
            "size": self.size,
            "chunk_bytes": self.chunk_bytes,
            "digests": base64.b64encode(b"".join(self.digests)).decode(),
        }

    @classmethod
    def from_json(cls, data: object) -> Manifest:
        """Raises TrustError where ``data`` is not what `to_json` makes."""
        match data:
            case {
                "suite": ("gm" | "intl") as name,
                "key": str(key),
                "size": int(size),
                "chunk_bytes": int(chunk_bytes),
                "digests": str(digests),
            }:
                joined = _unbase64(digests)
                parts = tuple(joined[i : i + 32] for i in range(0, len(joined), 32))
                return cls(name, _unbase64(key), size, chunk_bytes, parts)
        raise _bad_manifest("expected suite, key, size, chunk_bytes and digests")


class BlobSealer:
    """Seals the chunks of one blob of ``size`` bytes, in any order and from several threads."""

    def __init__(self, suite: Suite, size: int, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._suite, self._size, self._chunk_bytes = suite, size, chunk_bytes
        self._key = os.urandom(suite.key_bytes)
        self._digests: list[bytes] = [b""] * chunk_count(size, chunk_bytes)

    @property
    def count(self) -> int:
        """Number of chunks; an empty blob has one."""
        return len(self._digests)

    def chunk(self, index: int, plaintext: Buffer) -> bytearray:
        """Chunk ``index`` sealed, 16 bytes longer than ``plaintext``, which is `chunk_bytes` long but for the last."""
        out = bytearray(memoryview(plaintext).nbytes + TAG_BYTES)
        self.chunk_into(index, plaintext, memoryview(out))
        return out

    def chunk_into(self, index: int, plaintext: Buffer, out: memoryview) -> None:
        """The same into ``out``. A chunk is sealed once: raises ValueError for a second time or a wrong length."""
        expected = _length(index, self._size, self._chunk_bytes)
        if memoryview(plaintext).nbytes != expected or self._digests[index]:
            raise ValueError(f"chunk {index}: expected {expected} bytes, once; got {memoryview(plaintext).nbytes}")
        self._suite.encrypt_into(self._key, _nonce(index), plaintext, _aad(index, self._size, self._chunk_bytes), out)
        self._digests[index] = self._suite.digest(out)

    def manifest(self) -> Manifest:
        """What opens the blob, once all chunks are sealed; ValueError before."""
        if not all(self._digests):
            raise ValueError(f"chunk {self._digests.index(b'')} is not sealed yet")
        return Manifest(self._suite.name, self._key, self._size, self._chunk_bytes, tuple(self._digests))


class BlobOpener:
    """Opens the chunks of one blob, in any order and from several threads."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._suite = suite(manifest.suite)

    def chunk(self, index: int, sealed: Buffer) -> bytearray:
        """The plaintext of chunk ``index``. Raises TrustError where it is not what was sealed at that place."""
        out = bytearray(max(0, memoryview(sealed).nbytes - TAG_BYTES))
        self.chunk_into(index, sealed, memoryview(out))
        return out

    def chunk_into(self, index: int, sealed: Buffer, out: memoryview) -> None:
        """The same into ``out``; after a TrustError it must not be used."""
        manifest = self._manifest
        if not 0 <= index < len(manifest.digests):
            raise _bad_chunk(index, f"the blob has chunks 0 to {len(manifest.digests) - 1}")
        expected = _length(index, manifest.size, manifest.chunk_bytes) + TAG_BYTES
        if memoryview(sealed).nbytes != expected:
            raise _bad_chunk(index, f"expected {expected} bytes, got {memoryview(sealed).nbytes}")
        if not hmac.compare_digest(self._suite.digest(sealed), manifest.digests[index]):
            raise _bad_chunk(index, "its digest is not the one in the manifest")
        aad = _aad(index, manifest.size, manifest.chunk_bytes)
        self._suite.decrypt_into(manifest.key, _nonce(index), sealed, aad, out)


def seal_blob(suite: Suite, data: Buffer, chunk_bytes: int = CHUNK_BYTES) -> tuple[bytearray, Manifest]:
    """All chunks of ``data`` one after another, and the manifest. Chunks are sealed side by side on the cores there are."""
    source = memoryview(data).cast("B")
    sealer = BlobSealer(suite, len(source), chunk_bytes)
    sealed = bytearray(len(source) + TAG_BYTES * sealer.count)
    target = memoryview(sealed)

    def one(index: int) -> None:
        start, end = index * chunk_bytes, min((index + 1) * chunk_bytes, len(source))
        sealer.chunk_into(index, source[start:end], target[start + TAG_BYTES * index : end + TAG_BYTES * (index + 1)])

    _each(one, sealer.count)
    return sealed, sealer.manifest()


def open_blob(manifest: Manifest, sealed: Buffer) -> bytearray:
    """The plaintext of a whole blob. Raises TrustError where any chunk is not what was sealed at its place."""
    source = memoryview(sealed).cast("B")
    if len(source) != manifest.sealed_size:
        raise _bad_manifest(f"expected a blob of {manifest.sealed_size} sealed bytes, got {len(source)}")
    opener, chunk_bytes = BlobOpener(manifest), manifest.chunk_bytes
    data = bytearray(manifest.size)
    target = memoryview(data)

    def one(index: int) -> None:
        start, end = index * chunk_bytes, min((index + 1) * chunk_bytes, manifest.size)
        opener.chunk_into(index, source[start + TAG_BYTES * index : end + TAG_BYTES * (index + 1)], target[start:end])

    _each(one, len(manifest.digests))
    return data


def chunk_count(size: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """Chunks of a blob of ``size`` bytes; an empty blob has one, so that its being empty is authenticated too."""
    return max(1, -(-size // chunk_bytes))


_CORES = len(os.sched_getaffinity(0))
_HELPERS = ThreadPoolExecutor(max_workers=max(1, min(4, _CORES) - 1), thread_name_prefix="trust-blob")


def _each(work: Callable[[int], None], count: int) -> None:
    """``work(0) … work(count - 1)`` on this thread and the helpers; the ciphers release the interpreter lock."""
    indexes = itertools.count()

    def run() -> None:
        while (index := next(indexes)) < count:
            work(index)

    helpers = [_HELPERS.submit(run) for _ in range(min(count, _CORES, 4) - 1)]
    try:
        run()
    finally:
        for helper in helpers:
            helper.cancel()
    for helper in helpers:
        if not helper.cancelled():
            helper.result()


def _length(index: int, size: int, chunk_bytes: int) -> int:
    return min(chunk_bytes, size - index * chunk_bytes)


def _nonce(index: int) -> bytes:
    return index.to_bytes(12, "big")


def _aad(index: int, size: int, chunk_bytes: int) -> bytes:
    return struct.pack(">QQQ", index, size, chunk_bytes)


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise _bad_manifest("it is not base64") from error


def _bad_chunk(index: int, why: str) -> TrustError:
    return TrustError(
        "FF-TRUST-013",
        f"chunk {index} of a blob was refused: {why}",
        hint="the chunk is fetched again; if it comes back, the store or the line between the two ends changes data",
    )


def _bad_manifest(why: str) -> TrustError:
    return TrustError(
        "FF-TRUST-014",
        f"the manifest of a blob does not fit: {why}",
        hint="both ends must run versions of fedfab that speak the same protocol version",
    )
