"""From the one tensor of a request to windows of 32-bit floats, without distorting a value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.inference.protocol import Tensor
from gateway.inference.refusal import RefusalError

FLOATS: dict[str, np.dtype[Any]] = {"FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")}
INTEGERS: dict[str, np.dtype[Any]] = {
    f"{kind}{bits}": np.dtype(f"<{kind[0].lower()}{bits // 8}") for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)
}
DATATYPES: dict[str, np.dtype[Any]] = {**FLOATS, **INTEGERS}
SINGLE_MAX = float(np.finfo(np.float32).max)


def window(inputs: tuple[Tensor, ...], name: str, rows: int, features: int) -> NDArray[np.float32]:
    """The one input of a model as float32, shape (n, rows, features).

    Raises RefusalError naming what was expected and what came: FF-INFER-004 for the name, -005 for the datatype, -006 for the shape, and
    -007 for a value that a 32-bit float cannot hold (an integer must be held exactly, a 64-bit float is rounded but not cut off).
    Infinity and NaN, which only binary tensors can carry, are found later, with the field they stand in.
    """
    if len(inputs) != 1 or inputs[0].name != name:
        names = [tensor.name for tensor in inputs]
        raise RefusalError(400, "FF-INFER-004", f'expected exactly one input named "{name}", got {names or "none"}')
    tensor = inputs[0]
    dtype = DATATYPES.get(tensor.datatype)
    if dtype is None:
        known = ", ".join(DATATYPES)
        raise RefusalError(
            400, "FF-INFER-005", f'input "{name}": datatype is "{tensor.datatype}", expected one of {known}'
        )
    if len(tensor.shape) != 3 or tensor.shape[0] < 1 or tensor.shape[1:] != (rows, features):
        expected = f"[n, {rows}, {features}] (n ≥ 1 windows of {rows} rows with {features} fields)"
        raise RefusalError(400, "FF-INFER-006", f'input "{name}": shape is {list(tensor.shape)}, expected {expected}')
    numbers = _raw(tensor, dtype) if isinstance(tensor.data, memoryview) else _listed(tensor)
    return _single(tensor, numbers).reshape(tensor.shape)


def _raw(tensor: Tensor, dtype: np.dtype[Any]) -> NDArray[Any]:
    expected = dtype.itemsize * math.prod(tensor.shape)
    if len(tensor.data) != expected:
        raise RefusalError(
            400,
            "FF-INFER-006",
            f'input "{tensor.name}": {len(tensor.data)} bytes of binary data, '
            f"{tensor.datatype} of shape {list(tensor.shape)} has {expected}",
        )
    return np.frombuffer(tensor.data, dtype)


def _listed(tensor: Tensor) -> NDArray[Any]:
    try:
        numbers = np.asarray(tensor.data)
    except (ValueError, OverflowError):
        numbers = np.empty((), dtype=object)
    if numbers.dtype.kind not in "iuf":
        raise RefusalError(
            400,
            "FF-INFER-007",
            f'input "{tensor.name}": data must be numbers only, flat or nested in the order of its shape {list(tensor.shape)}',
            hint="a missing value cannot be sent: leave the window out, or fill it in as the plant sees fit",
        )
    if numbers.shape != tensor.shape and numbers.shape != (math.prod(tensor.shape),):
        raise RefusalError(
            400,
            "FF-INFER-006",
            f'input "{tensor.name}": data holds {numbers.size} numbers in shape {list(numbers.shape)}, its shape says {list(tensor.shape)}',
        )
    return numbers


def _single(tensor: Tensor, numbers: NDArray[Any]) -> NDArray[np.float32]:
    if numbers.dtype.kind == "f" and numbers.dtype.itemsize <= 4:
        return numbers.astype(np.float32, copy=False)
    if tensor.datatype in FLOATS:
        if max(numbers.max(), -numbers.min()) <= SINGLE_MAX:
            return numbers.astype(np.float32)
        lossy = np.abs(numbers) > SINGLE_MAX
    elif numbers.dtype.kind == "f":
        lossy = np.ones(numbers.shape, dtype=bool)
    else:
        limits = np.iinfo(INTEGERS[tensor.datatype])
        lossy = (numbers < limits.min) | (numbers > limits.max) | (numbers.astype(np.float32).astype(object) != numbers)
    if lossy.any():
        raise RefusalError(
            400,
            "FF-INFER-007",
            f'input "{tensor.name}": {numbers[lossy][0]} as {tensor.datatype} does not fit the 32-bit float the model takes',
            hint="send FP32 or FP64, or integers that their datatype holds and up to 16777216",
        )
    return numbers.astype(np.float32)
