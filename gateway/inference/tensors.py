"""The JSON tensors of the Open Inference Protocol v2, and why a request is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import GatewayError

INTEGERS = {f"{kind}{bits}": np.dtype(f"{kind}{bits}".lower()) for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)}
DATATYPES = ("FP32", "FP64", *INTEGERS)
SINGLE_MAX = float(np.finfo(np.float32).max)


class RefusalError(GatewayError):
    """A request that cannot be answered, with the HTTP status that says whose fault it is."""

    def __init__(self, status: int, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(code, message, hint=hint)
        self.status = status


class Tensor(BaseModel):
    """One input of a request. ``data`` is flat or nested in row-major order."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: Any


class Output(BaseModel):
    """One output a request asks for."""

    name: str


class Parameters(BaseModel):
    """What a request says beside its tensors. Unknown parameters are ignored, as the protocol has it."""

    end: str | None = Field(default=None, description="Predict from the latest stored window of this end.")
    max_age_s: float | None = Field(default=None, gt=0, description="Refuse a window whose newest row is older.")


class Request(BaseModel):
    """The body of an inference request."""

    model_config = ConfigDict(extra="ignore")

    id: str | None = None
    parameters: Parameters = Parameters()
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Output, ...] = ()


def parse(body: bytes) -> Request:
    """The request in ``body``. Raises RefusalError FF-INFER-003 naming the field that is wrong."""
    try:
        return Request.model_validate(orjson.loads(body))
    except orjson.JSONDecodeError as error:
        raise RefusalError(
            400, "FF-INFER-003", f"the body is no JSON: {error}", hint="numbers must be finite, text UTF-8"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"])) or "the body"
        got = "" if first["type"] == "missing" else f", got {str(first['input'])[:80]}"
        raise RefusalError(
            400,
            "FF-INFER-003",
            f"{field}: {first['msg']}{got}",
            hint='expected {"inputs": [{"name", "shape", "datatype", "data"}]} or {"parameters": {"end": NAME}}',
        ) from None


def window(inputs: tuple[Tensor, ...], name: str, rows: int, features: int) -> NDArray[np.float32]:
    """The one input of a model as float32, shape (n, rows, features).

    Raises RefusalError naming what was expected and what came: FF-INFER-004 for the name, -005 for the datatype, -006 for the shape, and
    -007 for a value that a 32-bit float cannot hold (an integer must be held exactly, a 64-bit float is rounded but not cut off).
    """
    names = [tensor.name for tensor in inputs]
    if names != [name]:
        raise RefusalError(400, "FF-INFER-004", f'expected exactly one input named "{name}", got {names or "none"}')
    tensor = inputs[0]
    if tensor.datatype not in DATATYPES:
        raise RefusalError(
            400,
            "FF-INFER-005",
            f'input "{name}": datatype is "{tensor.datatype}", expected one of {", ".join(DATATYPES)}',
        )
    if len(tensor.shape) != 3 or tensor.shape[0] < 1 or tensor.shape[1:] != (rows, features):
        expected = f"[n, {rows}, {features}] (n ≥ 1 windows of {rows} rows with {features} fields)"
        raise RefusalError(400, "FF-INFER-006", f'input "{name}": shape is {list(tensor.shape)}, expected {expected}')
    return _single(name, tensor, _numbers(name, tensor)).reshape(tensor.shape)


def _numbers(name: str, tensor: Tensor) -> NDArray[Any]:
    try:
        numbers = np.asarray(tensor.data)
    except (ValueError, OverflowError):
        numbers = np.empty((), dtype=object)
    if numbers.dtype.kind not in "iuf":
        raise RefusalError(
            400,
            "FF-INFER-007",
            f'input "{name}": data must be numbers only, flat or nested in the order of its shape {list(tensor.shape)}',
            hint="a missing value cannot be sent: leave the window out, or fill it in as the plant sees fit",
        )
    if numbers.shape not in (tensor.shape, (int(np.prod(tensor.shape)),)):
        raise RefusalError(
            400,
            "FF-INFER-006",
            f'input "{name}": data holds {numbers.size} numbers in shape {list(numbers.shape)}, its shape says {list(tensor.shape)}',
        )
    return numbers


def _single(name: str, tensor: Tensor, numbers: NDArray[Any]) -> NDArray[np.float32]:
    integer = INTEGERS.get(tensor.datatype)
    if integer is None:
        lossy = np.abs(numbers) > SINGLE_MAX
    elif numbers.dtype.kind == "f":
        lossy = np.ones(numbers.shape, dtype=bool)
    else:
        limits = np.iinfo(integer)
        lossy = (numbers < limits.min) | (numbers > limits.max) | (numbers.astype(np.float32).astype(object) != numbers)
    if lossy.any():
        value = numbers[lossy][0]
        raise RefusalError(
            400,
            "FF-INFER-007",
            f'input "{name}": {value} as {tensor.datatype} does not fit the 32-bit float the model takes',
            hint="send FP32 or FP64, or integers that their datatype holds and up to 16777216",
        )
    return numbers.astype(np.float32)


def encode(name: str, array: NDArray[Any]) -> dict[str, object]:
    """An output as a JSON tensor; ``data`` stays a numpy array for orjson."""
    datatype = {"float32": "FP32", "float64": "FP64"}.get(array.dtype.name, array.dtype.name.upper())
    return {"name": name, "datatype": datatype, "shape": array.shape, "data": np.ascontiguousarray(array).reshape(-1)}
