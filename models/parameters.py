"""Parameters of `encoder -> trunk -> head` by name: their shapes, first values, owners and bytes. numpy only."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError
from models.learner import Params
from models.schema import Schema
from models.spec import TaskSpec

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Dense:
    """One fully connected layer: ``y = x @ weight.T + bias``, and a ReLU behind every layer but the head."""

    scope: str
    index: int
    inputs: int
    outputs: int
    relu: bool

    @property
    def weight(self) -> str:
        """Name of the weight, shape (outputs, inputs)."""
        return f"{self.scope}/{self.index}.weight"

    @property
    def bias(self) -> str:
        """Name of the bias, shape (outputs,)."""
        return f"{self.scope}/{self.index}.bias"


def layers(spec: TaskSpec, schema: Schema) -> list[Dense]:
    """The network for one schema, from the flattened window to the head. Everything that builds or names a network reads this."""
    network = spec.network
    blocks = (
        (encoder(schema), (spec.data.window * len(schema.fields), *network.encoder)),
        ("trunk", (network.encoder[-1], *network.trunk)),
        ("head", (network.trunk[-1], spec.outputs)),
    )
    return [
        Dense(scope, index, inputs, outputs, relu=scope != "head")
        for scope, widths in blocks
        for index, (inputs, outputs) in enumerate(pairwise(widths))
    ]


def encoder(schema: Schema) -> str:
    """Scope of the schema's encoder."""
    return f"encoder@{schema.digest()}"


def scaler(schema: Schema) -> str:
    """Scope of the constants that standardise the schema's fields."""
    return f"scaler@{schema.digest()}"


def trainable(name: str) -> bool:
    """Whether a parameter is learned; ``scaler@…`` and ``target`` are constants that travel with the model."""
    return not name.startswith(("scaler@", "target/"))


def shapes(spec: TaskSpec, schema: Schema) -> dict[str, tuple[int, ...]]:
    """Every parameter of the network for one schema, by name: what is learned, then the constants."""
    found: dict[str, tuple[int, ...]] = {}
    for layer in layers(spec, schema):
        found[layer.weight] = (layer.outputs, layer.inputs)
        found[layer.bias] = (layer.outputs,)
    for kind in ("mean", "std"):
        found[f"{scaler(schema)}/{kind}"] = (len(schema.fields),)
        if spec.kind == "regression":
            found[f"target/{kind}"] = (1,)
    return found


def initial(spec: TaskSpec, schemas: Iterable[Schema]) -> Params:
    """First parameters for all schemas: uniform in ±1/sqrt(inputs), torch's default for `Linear` (He et al. 2015 with a = sqrt 5).

    Seeded by the task's seed and the scope's name, so every process makes the same and a further schema changes no other scope.
    Constants are neutral (mean 0, std 1) until `models.scaling` gives them.
    """
    params: Params = {}
    for schema in schemas:
        generators: dict[str, np.random.Generator] = {}
        for layer in layers(spec, schema):
            generator = generators.setdefault(layer.scope, seeded(spec.seed, layer.scope))
            bound = 1 / np.sqrt(layer.inputs)
            params[layer.weight] = generator.uniform(-bound, bound, (layer.outputs, layer.inputs)).astype(np.float32)
            params[layer.bias] = generator.uniform(-bound, bound, layer.outputs).astype(np.float32)
        for name, shape in shapes(spec, schema).items():
            if not trainable(name):
                params[name] = np.full(shape, name.endswith("/std"), dtype=np.float32)
    return params


def seeded(seed: int, *words: str | int) -> np.random.Generator:
    """A generator that depends on the task's seed and on ``words`` alone, the same in every process."""
    text = "\0".join(map(str, words))
    return np.random.default_rng([seed, *hashlib.sha256(text.encode()).digest()])


def held(params: Params, schemas: Iterable[Schema]) -> Params:
    """The part of ``params`` that a holder of these schemas uses: shared scopes, and its own encoders and scalers."""
    own = {scope for schema in schemas for scope in (encoder(schema), scaler(schema))}
    return {name: value for name, value in params.items() if "@" not in name or name.split("/")[0] in own}


def require(params: Mapping[str, NDArray[np.float32]], spec: TaskSpec, schema: Schema) -> None:
    """Raises ModelError FF-MODEL-003 unless ``params`` holds every parameter of this schema's network, in its shape."""
    for name, shape in shapes(spec, schema).items():
        got = params[name].shape if name in params else None
        if got != shape:
            raise ModelError(
                "FF-MODEL-003",
                f'task "{spec.name}": parameter {name} is {"missing" if got is None else f"of shape {got}"}, expected shape {shape}',
                hint="the model was made for another task or schema; start the task again so that all sides agree",
            )


def to_bytes(params: Params) -> bytes:
    """Parameters as safetensors, float32; the same parameters give the same bytes."""
    return b"".join(parts(params))


def parts(params: Params) -> list[Buffer]:
    """What `to_bytes` joins: the header, then every tensor where it lies in memory, so that large models need not be copied.

    Layout: safetensors, u64 length of the header, JSON padded to 8 bytes, tensors in the order of their names.
    """
    header: dict[str, object] = {}
    tensors: list[Buffer] = []
    end = 0
    for name, value in sorted(params.items()):
        tensor = np.ascontiguousarray(value, dtype="<f4")
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [end, end + tensor.nbytes]}
        tensors.append(tensor.data.cast("B") if tensor.size else b"")
        end += tensor.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    return [struct.pack("<Q", len(text)), text, *tensors]


def from_bytes(data: Buffer) -> Params:
    """Parameters from safetensors as read-only views into ``data``: nothing is copied, ``data`` stays alive with them.

    Raises ModelError FF-MODEL-004 where ``data`` is not whole, or holds anything but float32.
    """
    view = memoryview(data).cast("B").toreadonly()
    try:
        (length,) = struct.unpack_from("<Q", view)
        start = 8 + length
        header = json.loads(bytes(view[8:start]))
        header.pop("__metadata__", None)
        return {name: _tensor(view[start:], name, entry) for name, entry in header.items()}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            "FF-MODEL-004",
            f"{len(view)} bytes are not safetensors of float32: {error}",
            hint="the file or message is damaged or comes from another program; fetch it again",
        ) from error


def digest(params: Params) -> str:
    """SHA-256 of the parameters' bytes in hexadecimal: the name of a model's exact state."""
    return hashlib.sha256(to_bytes(params)).hexdigest()


def _tensor(body: memoryview, name: str, entry: dict[str, object]) -> NDArray[np.float32]:
    shape, offsets = entry["shape"], entry["data_offsets"]
    if entry["dtype"] != "F32" or not isinstance(shape, list) or not isinstance(offsets, list):
        raise ValueError(f"{name} is {entry['dtype']}")
    begin, end = offsets
    if not 0 <= begin <= end <= len(body):
        raise ValueError(f"{name} lies at bytes {begin} to {end} of {len(body)}")
    array: NDArray[np.float32] = np.frombuffer(body[begin:end], dtype="<f4").reshape(shape)
    return np.require(array, requirements="A")
