"""Sealed messages: a digital envelope from one participant to one other, which a relay may carry but neither read nor change.

The body is a blob (`trust.blob`) under a one-time key. The key is wrapped to the recipient; the sender signs header, wrapped key
and the digests of all chunks. So only the recipient reads the body, and a third party can be shown who sent it.

    "FFE" version            4 bytes
    header                   u16 length, then eight fields in fixed order (`Header.encode`)
    wrapped key              u16 length, bytes
    body                     u64 size, u32 chunk size, then one 32-byte digest per chunk
    signature                u16 length, bytes: over "fedfab envelope" and all that stands before it
    sealed chunks

Numbers are big-endian. There is one way to write a header, so what was signed and what is read cannot differ.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from trust.blob import Manifest, chunk_count, open_blob, seal_blob
from trust.errors import TrustError
from trust.identity import Identity, Peer
from trust.keys import SuiteName
from trust.suite import suite

_MAGIC = b"FFE\x01"
_CONTEXT = b"fedfab envelope"
_CHUNK_BYTES = 256 << 10  # small enough that a body of a megabyte is sealed on several cores
_SUITES: dict[int, SuiteName] = {1: "gm", 2: "intl"}


@dataclass(frozen=True)
class Header:
    """What the relay sees. Texts are at most 255 bytes in UTF-8; sequence and time are below 2^64.

    ``sequence`` grows with every message of a sender to a recipient, ``time_ms`` is the sender's clock in ms since 1970.
    """

    id: str
    task: str
    kind: str
    sender: str
    recipient: str
    sequence: int
    time_ms: int
    suite: SuiteName

    def encode(self) -> bytes:
        """The one canonical encoding: suite, sequence, time, then five texts with a length byte each."""
        number = next(number for number, name in _SUITES.items() if name == self.suite)
        texts = [text.encode() for text in (self.id, self.task, self.kind, self.sender, self.recipient)]
        for text in texts:
            if len(text) > 255:
                raise ValueError(f"a header text has {len(text)} bytes, at most 255 fit: {text[:40]!r}…")
        head = struct.pack(">BQQ", number, self.sequence, self.time_ms)
        return head + b"".join(bytes([len(text)]) + text for text in texts)

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """Raises TrustError where ``data`` is not what `encode` makes."""
        reader = _Reader(data)
        number, sequence, time_ms = reader.unpack(">BQQ")
        texts = [_text(reader.take(reader.unpack(">B")[0])) for _ in range(5)]
        if reader.rest() or number not in _SUITES:
            raise _malformed("the header has an unknown suite or too many bytes")
        identity, task, kind, sender, recipient = texts
        return cls(identity, task, kind, sender, recipient, sequence, time_ms, _SUITES[number])


def seal(identity: Identity, recipient: Peer, header: Header, body: bytes) -> bytes:
    """``body`` for ``recipient`` alone, signed by ``identity``, whose names and suite the header must bear (ValueError)."""
    ours = (identity.peer.name, recipient.name, identity.peer.suite, recipient.suite)
    if ours != (header.sender, header.recipient, header.suite, header.suite):
        raise ValueError(f"header names {header.sender} → {header.recipient} ({header.suite}), the keys are of {ours}")
    algorithms = suite(header.suite)
    chunks, manifest = seal_blob(algorithms, body, _CHUNK_BYTES)
    head = b"".join(
        [
            _MAGIC,
            _with_length(header.encode()),
            _with_length(algorithms.wrap(recipient.public, manifest.key)),
            struct.pack(">QI", manifest.size, manifest.chunk_bytes),
            *manifest.digests,
        ]
    )
    signature = algorithms.sign(identity.private, _CONTEXT + head)
    return b"".join([head, _with_length(signature), chunks])


def peek(sealed: bytes) -> Header:
    """The header of a sealed message, for a relay: no key needed, and not authenticated before `unseal`."""
    return _parse(sealed).header


def unseal(identity: Identity, sender: Peer, sealed: bytes) -> tuple[Header, bytes]:
    """Header and body of a message from ``sender`` to ``identity``. Raises TrustError where it is anything else.

    Whether it came before is for `trust.replay` to say.
    """
    parts = _parse(sealed)
    header = parts.header
    if header.recipient != identity.peer.name or header.sender != sender.name:
        raise TrustError(
            "FF-TRUST-031",
            f"expected a message from {sender.name} to {identity.peer.name}, got one from {header.sender} to {header.recipient}",
            hint="the relay mixed up mailboxes, or two participants bear one name",
        )
    if not header.suite == identity.peer.suite == sender.suite:
        raise TrustError(
            "FF-TRUST-032",
            f"expected suite {identity.peer.suite}, got a message in {header.suite} from {sender.name} ({sender.suite})",
            hint="set the same `[trust] suite` on both sides",
        )
    algorithms = suite(header.suite)
    algorithms.verify(sender.public, _CONTEXT + parts.signed, parts.signature)
    key = algorithms.unwrap(identity.private, parts.wrapped)
    manifest = Manifest(header.suite, key, parts.size, parts.chunk_bytes, parts.digests)
    return header, bytes(open_blob(manifest, parts.chunks))


@dataclass(frozen=True)
class _Parts:
    header: Header
    wrapped: bytes
    size: int
    chunk_bytes: int
    digests: tuple[bytes, ...]
    signed: bytes
    signature: bytes
    chunks: memoryview


class _Reader:
    """Takes parts off the front of a buffer; TrustError where it ends too soon."""

    def __init__(self, data: bytes) -> None:
        self._view = memoryview(data)
        self.at = 0

    def take(self, size: int) -> bytes:
        if size > len(self._view) - self.at:
            raise _malformed("it ends too soon")
        self.at += size
        return bytes(self._view[self.at - size : self.at])

    def unpack(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def rest(self) -> memoryview:
        return self._view[self.at :]


def _parse(sealed: bytes) -> _Parts:
    reader = _Reader(sealed)
    magic = reader.take(4)
    if magic != _MAGIC:
        raise TrustError(
            "FF-TRUST-033",
            f"expected a sealed message of version 1 ({_MAGIC!r}), got {magic!r}",
            hint="both ends must run versions of fedfab that speak the same protocol version",
        )
    header = Header.decode(reader.take(reader.unpack(">H")[0]))
    wrapped = reader.take(reader.unpack(">H")[0])
    size, chunk_bytes = reader.unpack(">QI")
    if chunk_bytes == 0 or chunk_count(size, chunk_bytes) * 32 > len(sealed):
        raise _malformed("its chunks cannot be that small or that many")
    digests = tuple(reader.take(32) for _ in range(chunk_count(size, chunk_bytes)))
    signed = sealed[: reader.at]
    signature = reader.take(reader.unpack(">H")[0])
    return _Parts(header, wrapped, size, chunk_bytes, digests, signed, signature, reader.rest())


def _with_length(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _malformed("a header text is not UTF-8") from error


def _malformed(why: str) -> TrustError:
    return TrustError(
        "FF-TRUST-030",
        f"a sealed message is malformed: {why}",
        hint="it was cut or changed on its way; the sender will send it again",
    )
