"""How the daemon and its worker processes talk: frames of a JSON header and arrays over a pipe.

A frame is two little-endian lengths (header: 4 bytes, arrays: 8 bytes), the header as JSON, the arrays as safetensors. Arrays carry
parameters, sums and counts; a row of data never travels here.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import safetensors.numpy
from numpy.typing import NDArray

Array = NDArray[Any]
LENGTHS = struct.Struct("<IQ")


def encode(header: Mapping[str, object], arrays: Mapping[str, Array]) -> tuple[bytes, bytes]:
    """A frame in two parts, to be written one after the other: lengths and header, then the arrays (empty when there are none)."""
    body = safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in arrays.items()}) if arrays else b""
    head = orjson.dumps(header)
    return LENGTHS.pack(len(head), len(body)) + head, body


def decode(head: bytes, body: bytes) -> tuple[dict[str, Any], dict[str, Array]]:
    """Header and arrays of a frame whose two parts have arrived whole."""
    return orjson.loads(head), safetensors.numpy.load(body) if body else {}


def join(**sections: Mapping[str, Array]) -> dict[str, Array]:
    """Several groups of arrays as one: ``join(params=…, sums=…)`` names them ``params:…`` and ``sums:…``."""
    return {f"{section}:{name}": array for section, arrays in sections.items() for name, array in arrays.items()}


def section(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """The group that `join` called ``prefix``, under the names it had."""
    start = f"{prefix}:"
    return {name[len(start) :]: array for name, array in arrays.items() if name.startswith(start)}
