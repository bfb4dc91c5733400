"""Blocks as bytes: little-endian columns behind a small header, what repeats compressed, measured values as they are.

    length of header u32 | header (JSON) | length of packed columns u32 | zlib of packed columns | plain columns

Doubles of a measurement hardly compress and would cost most of the time; times, tag numbers and qualities shrink to next to nothing.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.blocks import FeatureBlock, Kind, SampleBlock

_LENGTH = struct.Struct("<I")
_FAST = 1  # zlib's level: the columns are so regular that a higher one gains little


def encode_samples(block: SampleBlock) -> bytes:
    """A raw block as bytes."""
    measured = np.isin(block.kind, (Kind.NUMBER, Kind.BOOLEAN))
    payload = np.where(measured, block.number.view(np.int64), block.integer)
    return _join(
        {"n": len(block), "tags": block.tags, "texts": block.texts},
        packed=[
            block.tag.astype("<u4"),
            block.kind,
            block.quality,
            np.diff(block.source_time, prepend=np.int64(0)).astype("<i8"),
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
    measured = np.isin(kind, (Kind.NUMBER, Kind.BOOLEAN))
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


def encode_features(block: FeatureBlock) -> bytes:
    """A block of feature rows as bytes."""
    n, fields = block.x.shape
    return _join(
        {"n": n, "fields": fields},
        packed=[np.diff(block.time, prepend=np.int64(0)).astype("<i8"), block.group.astype("<f8")],
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


def _join(header: Mapping[str, object], packed: Sequence[NDArray[Any]], plain: Sequence[NDArray[Any]]) -> bytes:
    head = json.dumps(header, separators=(",", ":")).encode()
    small = zlib.compress(b"".join(column.tobytes() for column in packed), _FAST)
    return b"".join(
        [_LENGTH.pack(len(head)), head, _LENGTH.pack(len(small)), small, *(column.tobytes() for column in plain)]
    )


def _split(data: bytes) -> tuple[dict[str, object], bytes, bytes]:
    try:
        (size,) = _LENGTH.unpack_from(data)
        header = json.loads(data[4 : 4 + size])
        at = 4 + size
        (size,) = _LENGTH.unpack_from(data, at)
        at += 4
        return header, zlib.decompress(data[at : at + size]), data[at + size :]
    except (struct.error, zlib.error) as error:
        raise ValueError(str(error)) from error


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
