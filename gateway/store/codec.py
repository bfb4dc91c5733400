"""Blocks as bytes: little-endian columns behind a small header, what repeats compressed, measured values as they are.

    length of header u32 | header (JSON; zlib of it where the top bit of the length is set)
    length of packed columns u32 | zlib of packed columns | plain columns

Doubles of a measurement hardly compress and would cost most of the time; times, tag numbers and qualities shrink to next to nothing.
The header names whose block it is, so that a block found in the ruins of a file still says what it was.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from gateway.blocks import FeatureBlock, Kind, SampleBlock

_LENGTH = struct.Struct("<I")
_SHRUNK = 1 << 31
_LONG = 256  # bytes of a header that is worth shrinking
_FAST = 1  # zlib's level: the columns are so regular that a higher one gains little


Parts = Sequence[tuple[int, int]]
"""Blocks that became one: number and length of each, in order."""


def encode_samples(block: SampleBlock, source: str, cursor: str | None = None, parts: Parts | None = None) -> bytes:
    """A raw block of a source as bytes, with the cursor behind it and, where it was merged, what it was merged of."""
    measured = (block.kind == Kind.NUMBER) | (block.kind == Kind.BOOLEAN)
    payload = np.where(measured, block.number.view(np.int64), block.integer)
    header: dict[str, object] = {"n": len(block), "source": source, "tags": block.tags, "texts": block.texts}
    if len(block):
        header |= {"first": int(block.source_time.min()), "last": int(block.source_time.max())}
    if cursor is not None:
        header["cursor"] = cursor
    if parts is not None:
        header["parts"] = parts
    return _join(
        header,
        packed=[
            block.tag.astype("<u4"),
            block.kind,
            block.quality,
            _steps(block.source_time),
            (block.gateway_time - block.source_time).astype("<i8"),
        ],
        plain=[payload.astype("<i8")],
    )


def decode_samples(data: bytes) -> SampleBlock:
    """The raw block again. Raises ValueError for bytes that are none."""
    header, packed, plain = _split(data)
    n = _count(header)
    tag, kind, quality, steps, delay = _columns(packed, n, ("<u4", "u1", "u1", "<i8", "<i8"))
    (payload,) = _columns(plain, n, ("<i8",))
    source_time = np.cumsum(steps, dtype=np.int64)
    texts = _strings(header, "texts")
    measured = (kind == Kind.NUMBER) | (kind == Kind.BOOLEAN)
    number = np.where(measured, payload.view(np.float64), np.where(kind == Kind.INTEGER, payload, np.nan))
    for i in np.flatnonzero(kind == Kind.BIG_INTEGER):
        number[i] = float(int(texts[payload[i]]))
    return SampleBlock(
        tags=_strings(header, "tags"),
        tag=tag.astype(np.uint32),
        kind=kind.astype(np.uint8),
        number=number,
        integer=np.where(measured, 0, payload),
        texts=texts,
        quality=quality.astype(np.uint8),
        source_time=source_time,
        gateway_time=source_time + delay,
    )


def encode_features(block: FeatureBlock, end: str) -> bytes:
    """A block of feature rows of an end as bytes."""
    n, fields = block.x.shape
    return _join(
        {"n": n, "end": end, "fields": fields}
        | ({"first": int(block.time[0]), "last": int(block.time[-1])} if n else {}),
        packed=[_steps(block.time), block.group.astype("<f8")],
        plain=[block.label.astype("<f8"), np.ascontiguousarray(block.x, "<f8")],
    )


def decode_features(data: bytes) -> FeatureBlock:
    """The feature rows again. Raises ValueError for bytes that are none."""
    header, packed, plain = _split(data)
    n = _count(header)
    steps, group = _columns(packed, n, ("<i8", "<f8"))
    values = np.frombuffer(plain, "<f8")
    return FeatureBlock(
        time=np.cumsum(steps, dtype=np.int64),
        x=values[n:].reshape(n, _count(header, "fields")).astype(np.float64),
        group=group.astype(np.float64),
        label=values[:n].astype(np.float64),
    )


@dataclass(frozen=True, slots=True)
class Header:
    """What a block says of itself before its columns are unpacked."""

    count: int
    source: str | None
    end: str | None
    cursor: str | None
    first: int
    last: int
    parts: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, data: bytes) -> Header:
        """Read it. Raises ValueError for bytes that are no block."""
        header, _ = _header(data)
        parts = header.get("parts") or ()
        if not isinstance(parts, (list, tuple)):
            raise ValueError('header with "parts" that are no list')
        texts = (_text(header, "source"), _text(header, "end"), _text(header, "cursor"))
        times = (int(str(header.get("first", 0))), int(str(header.get("last", 0))))
        return cls(_count(header), *texts, *times, tuple((int(number), int(length)) for number, length in parts))


def named(data: bytes, **more: object) -> bytes:
    """A block with more in its header. Raises ValueError for bytes that are no block."""
    header, at = _header(data)
    return _head(header | more) + data[at:]


def join_samples(blocks: Sequence[SampleBlock]) -> SampleBlock:
    """Several blocks of one source as one, in this order."""
    tags: dict[str, int] = {}
    texts: list[str] = []
    tag, integer = [], []
    for block in blocks:
        places = np.array([tags.setdefault(name, len(tags)) for name in block.tags], np.uint32)
        tag.append(places[block.tag])
        worded = (block.kind == Kind.TEXT) | (block.kind == Kind.BIG_INTEGER)
        integer.append(np.where(worded, block.integer + len(texts), block.integer))
        texts += block.texts
    return SampleBlock(
        tags=tuple(tags),
        tag=np.concatenate(tag),
        kind=np.concatenate([block.kind for block in blocks]),
        number=np.concatenate([block.number for block in blocks]),
        integer=np.concatenate(integer),
        texts=tuple(texts),
        quality=np.concatenate([block.quality for block in blocks]),
        source_time=np.concatenate([block.source_time for block in blocks]),
        gateway_time=np.concatenate([block.gateway_time for block in blocks]),
    )


def part_samples(block: SampleBlock, start: int, end: int) -> SampleBlock:
    """The samples from position ``start`` to before ``end``."""
    rows = slice(start, end)
    columns = (block.kind[rows], block.number[rows], block.integer[rows], block.texts, block.quality[rows])
    return SampleBlock(block.tags, block.tag[rows], *columns, block.source_time[rows], block.gateway_time[rows])


def join_features(blocks: Sequence[FeatureBlock]) -> FeatureBlock:
    """Several blocks of one end as one, in this order."""
    if len(blocks) == 1:
        return blocks[0]
    return FeatureBlock(
        time=np.concatenate([block.time for block in blocks]),
        x=np.concatenate([block.x for block in blocks]),
        group=np.concatenate([block.group for block in blocks]),
        label=np.concatenate([block.label for block in blocks]),
    )


def _join(header: Mapping[str, object], packed: Sequence[NDArray[Any]], plain: Sequence[NDArray[Any]]) -> bytes:
    small = zlib.compress(b"".join(column.tobytes() for column in packed), _FAST)
    return b"".join([_head(header), _LENGTH.pack(len(small)), small, *(column.tobytes() for column in plain)])


def _head(header: Mapping[str, object]) -> bytes:
    """A header with its length in front. Names of tags repeat each other, so that a long one shrinks to a fraction."""
    try:
        head = orjson.dumps(header)
    except TypeError:  # half a character, which a machine may well send
        head = json.dumps(header).encode()
    if len(head) < _LONG:
        return _LENGTH.pack(len(head)) + head
    small = zlib.compress(head, _FAST)
    return _LENGTH.pack(len(small) | _SHRUNK) + small


def _header(data: bytes) -> tuple[dict[str, object], int]:
    """The header, and where the columns begin."""
    try:
        (size,) = _LENGTH.unpack_from(data)
        end = 4 + (size & ~_SHRUNK)
        head = zlib.decompress(data[4:end]) if size & _SHRUNK else data[4:end]
        header = json.loads(head) if b"\\ud" in head else orjson.loads(head)
    except (struct.error, zlib.error) as error:
        raise ValueError(str(error)) from error
    if not isinstance(header, dict):
        raise ValueError("header that is no object")
    return header, end


def _split(data: bytes) -> tuple[dict[str, object], bytes, bytes]:
    header, at = _header(data)
    try:
        (size,) = _LENGTH.unpack_from(data, at)
        at += 4
        return header, zlib.decompress(data[at : at + size]), data[at + size :]
    except (struct.error, zlib.error) as error:
        raise ValueError(str(error)) from error


def _steps(time: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first, then what each is later than the one before."""
    steps = time.astype("<i8")
    steps[1:] -= time[:-1]
    return steps


def _columns(data: bytes, n: int, dtypes: Sequence[str]) -> list[NDArray[Any]]:
    columns: list[NDArray[Any]] = []
    at = 0
    for dtype in dtypes:
        columns.append(np.frombuffer(data, dtype, n, at))
        at += n * np.dtype(dtype).itemsize
    if at != len(data):
        raise ValueError(f"expected {at} bytes of columns, got {len(data)}")
    return columns


def _count(header: Mapping[str, object], key: str = "n") -> int:
    value = header.get(key)
    if not isinstance(value, int) or value < 0:
        raise ValueError(f'header without a count "{key}"')
    return value


def _strings(header: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = header.get(key)
    if not isinstance(value, list):
        raise ValueError(f'header without a list "{key}"')
    return tuple(map(str, value))


def _text(header: Mapping[str, object], key: str) -> str | None:
    value = header.get(key)
    return None if value is None else str(value)
