"""Requests and answers of the Open Inference Protocol v2: JSON, alone or with binary tensors behind it.

The binary tensor data extension puts raw little-endian tensors behind the JSON and its length into the header
``Inference-Header-Content-Length``. Checked by hand, not by a model: this is on the way of every request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from gateway.inference.refusal import RefusalError

HEADER_LENGTH = "Inference-Header-Content-Length"
SHAPE = 'expected {"inputs": [{"name", "shape", "datatype", "data"}]} or {"parameters": {"end": NAME}}'
DATATYPES = {np.dtype(kind): name for kind, name in (("f4", "FP32"), ("f8", "FP64"), ("i8", "INT64"))}
"""Of the outputs that models here have."""
MICROSECONDS = 1e-6


@dataclass(slots=True)
class Tensor:
    """One input of a request."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: Any
    """A list, flat or nested in row-major order; or a memoryview of the raw bytes."""


@dataclass(slots=True)
class Request:
    """What a client asks for."""

    id: str | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[tuple[str, bool], ...]
    """Names of the outputs it wants, and whether as binary; empty: all, by `binary`."""
    binary: bool
    end: str | None
    """Predict from the latest stored window of this end."""
    max_age_s: float | None
    """Refuse a window whose newest row is older."""
    timeout_s: float | None
    """Do not begin to compute after so long."""


def parse(body: bytes | memoryview, header_length: str | None) -> Request:
    """The request in ``body``. Raises RefusalError FF-INFER-003 naming the field that is wrong.

    Unknown fields and parameters are ignored, as the protocol has it.
    """
    text, rest = _parted(memoryview(body), header_length)
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _wrong(f"the body is no JSON: {error}", "numbers must be finite, text UTF-8") from None
    document = _typed("the body", document, dict)
    parameters = _typed("parameters", document.get("parameters", {}), dict)
    binary = parameters.get("binary_data_output", False) is True
    tensors, rest = _inputs(_typed("inputs", document.get("inputs", []), list), rest)
    if rest:
        raise _wrong(
            f"{len(rest)} bytes follow the last binary tensor", f"compare binary_data_size and {HEADER_LENGTH}"
        )
    timeout = _positive(parameters, "timeout")
    return Request(
        id=_text("id", document.get("id")),
        inputs=tensors,
        outputs=_outputs(_typed("outputs", document.get("outputs", []), list), binary=binary),
        binary=binary,
        end=_text("parameters.end", parameters.get("end")),
        max_age_s=_positive(parameters, "max_age_s"),
        timeout_s=None if timeout is None else timeout * MICROSECONDS,
    )


def encode(
    document: dict[str, object], outputs: Mapping[str, NDArray[Any]], binary: frozenset[str]
) -> tuple[bytes, int]:
    """The answer ``document`` with these outputs: its bytes, and the length of its JSON where tensors follow, else 0."""
    tensors, tail = [], []
    for name, array in outputs.items():
        tensor: dict[str, object] = {
            "name": name,
            "datatype": DATATYPES[array.dtype],
            "shape": array.shape,
        }
        if name in binary:
            data = np.ascontiguousarray(array).tobytes()
            tensor["parameters"] = {"binary_data_size": len(data)}
            tail.append(data)
        else:
            tensor["data"] = np.ascontiguousarray(array).reshape(-1)
        tensors.append(tensor)
    document["outputs"] = tensors
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([head, *tail]), len(head)) if tail else (head, 0)


def _parted(body: memoryview, header_length: str | None) -> tuple[memoryview, memoryview]:
    if header_length is None:
        return body, body[:0]
    length = int(header_length) if header_length.isascii() and header_length.isdigit() else -1
    if not 0 <= length <= len(body):
        raise _wrong(
            f'{HEADER_LENGTH} is "{header_length}", the body has {len(body)} bytes', "it is the length of the JSON part"
        )
    return body[:length], body[length:]


def _inputs(entries: list[Any], rest: memoryview) -> tuple[tuple[Tensor, ...], memoryview]:
    tensors = []
    for number, entry in enumerate(entries):
        where = f"inputs.{number}"
        _typed(where, entry, dict)
        size = _typed(f"{where}.parameters", entry.get("parameters", {}), dict).get("binary_data_size")
        if size is None:
            data = _needed(where, entry, "data", list)
        else:
            if type(size) is not int or not 0 <= size <= len(rest):
                raise _wrong(
                    f"{where}.parameters.binary_data_size: {size} bytes, {len(rest)} are left behind the JSON", ""
                )
            data, rest = rest[:size], rest[size:]
        shape = _needed(where, entry, "shape", list)
        for length in shape:
            if type(length) is not int or length < 0:
                raise _wrong(f"{where}.shape: expected whole numbers, got {_short(length)}", SHAPE)
        name, datatype = _needed(where, entry, "name", str), _needed(where, entry, "datatype", str)
        tensors.append(Tensor(name, tuple(shape), datatype, data))
    return tuple(tensors), rest


def _outputs(entries: list[Any], *, binary: bool) -> tuple[tuple[str, bool], ...]:
    outputs = []
    for number, entry in enumerate(entries):
        where = f"outputs.{number}"
        _typed(where, entry, dict)
        parameters = _typed(f"{where}.parameters", entry.get("parameters", {}), dict)
        for extension in ("classification", "shared_memory_region"):
            if extension in parameters:
                raise _wrong(
                    f"{where}.parameters.{extension}: this server does not have that extension",
                    "GET /v2 lists those it has",
                )
        outputs.append((_needed(where, entry, "name", str), parameters.get("binary_data", binary) is True))
    return tuple(outputs)


def _needed(where: str, entry: Mapping[str, Any], key: str, kind: type) -> Any:
    if key not in entry:
        raise _wrong(f"{where}.{key}: missing", SHAPE)
    return _typed(f"{where}.{key}", entry[key], kind)


def _typed(where: str, value: Any, kind: type) -> Any:
    if type(value) is not kind:
        names: dict[type, str] = {dict: "an object", list: "a list", str: "text"}
        raise _wrong(f"{where}: expected {names[kind]}, got {_short(value)}", SHAPE)
    return value


def _text(where: str, value: Any) -> str | None:
    return None if value is None else str(_typed(where, value, str))


def _positive(parameters: Mapping[str, Any], key: str) -> float | None:
    value = parameters.get(key)
    if value is None:
        return None
    if type(value) not in (int, float) or value <= 0:
        raise _wrong(f"parameters.{key}: expected a number greater than 0, got {_short(value)}", "")
    return float(value)


def _wrong(message: str, hint: str) -> RefusalError:
    return RefusalError(400, "FF-INFER-003", message, hint=hint)


def _short(value: object) -> str:
    return str(value)[:80]
