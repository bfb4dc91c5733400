"""Loaded models. A promotion is seen at the next request; the old session lives on until its last request is answered."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import structlog
from numpy.typing import NDArray

from common.errors import FedfabError
from gateway.inference.tensors import RefusalError
from gateway.modelstore import Evidence, ModelStore

log = structlog.get_logger()

OLD_SESSIONS = 8
DATATYPES = {"tensor(float)": "FP32", "tensor(double)": "FP64", "tensor(int64)": "INT64"}

Stamp = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Served:
    """One version of one model, ready to run."""

    evidence: Evidence
    session: onnxruntime.InferenceSession
    input_name: str
    output_names: list[str]
    rows: int
    """Rows in a window."""
    features: int

    def run(self, windows: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Outputs by name for ``windows`` (n, rows, features)."""
        return dict(zip(self.output_names, self.session.run(None, {self.input_name: windows}), strict=True))

    def describe(self, versions: list[int]) -> dict[str, object]:
        """Metadata as the protocol has it, with the fields of a row under ``parameters``."""
        schema = self.evidence.data_schema
        return {
            "name": self.evidence.model,
            "versions": [str(version) for version in versions],
            "platform": "onnxruntime_onnx",
            "inputs": [_tensor(node) for node in self.session.get_inputs()],
            "outputs": [_tensor(node) for node in self.session.get_outputs()],
            "parameters": {
                "version_in_use": str(self.evidence.version),
                "fields": [field.model_dump() for field in schema.fields],
                "label": schema.label.model_dump(),
            },
        }


class Shelf:
    """The models in use, loaded, and a few older versions somebody asked for."""

    def __init__(self, models: ModelStore) -> None:
        self.models = models
        self._current: dict[str, tuple[Stamp, Served]] = {}
        self._old: OrderedDict[tuple[str, int], Served] = OrderedDict()
        self._loading = asyncio.Lock()

    async def load_all(self) -> None:
        """Load every model in use; one that cannot be loaded is logged and does not keep the others from serving."""
        for name in self.models.names():
            try:
                await self.current(name)
            except FedfabError as error:
                log.error("model not served", model=name, error=str(error))

    async def current(self, name: str) -> Served:
        """The version of ``name`` in use. Raises RefusalError FF-INFER-001 when there is none.

        A version that cannot be loaded is logged once, and the one before it goes on serving.
        """
        loaded = self._current.get(name)
        if loaded is not None and loaded[0] == self.models.stamp(name):
            return loaded[1]
        async with self._loading:
            stamp, loaded = self.models.stamp(name), self._current.get(name)
            if stamp is None:
                raise self._unknown(name)
            if loaded is None or loaded[0] != stamp:
                loaded = stamp, await self._swap(name, loaded[1] if loaded else None)
                self._current[name] = loaded
            return loaded[1]

    async def version(self, name: str, version: str) -> Served:
        """A given version of ``name``, in use or not. Raises RefusalError FF-INFER-001 or -002."""
        current = await self.current(name)
        if version == str(current.evidence.version):
            return current
        known = self.models.versions(name)
        if not version.isdigit() or int(version) not in known:
            raise RefusalError(
                404, "FF-INFER-002", f"model {name} has no version {version}; it has {', '.join(map(str, known))}"
            )
        key = name, int(version)
        async with self._loading:
            if key not in self._old:
                self._old[key] = await asyncio.to_thread(_load, self.models, *key)
            self._old.move_to_end(key)
            while len(self._old) > OLD_SESSIONS:
                self._old.popitem(last=False)
            return self._old[key]

    async def _swap(self, name: str, old: Served | None) -> Served:
        in_use = self.models.in_use(name)
        if in_use is None:
            raise self._unknown(name)
        try:
            new = await asyncio.to_thread(_load, self.models, name, in_use.version)
        except Exception as error:
            if old is None:
                raise
            log.error(
                "new version not served",
                model=name,
                version=in_use.version,
                error=str(error),
                serving=old.evidence.version,
            )
            return old
        log.info("model in use", model=name, version=in_use.version, why=in_use.why)
        return new

    def _unknown(self, name: str) -> RefusalError:
        known = ", ".join(name for name in self.models.names() if self.models.stamp(name)) or "none yet"
        return RefusalError(
            404, "FF-INFER-001", f"no model {name} is in use here; in use: {known}", hint="GET /v2/models lists them"
        )


def _load(models: ModelStore, name: str, version: int) -> Served:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(models.model(name, version), options, providers=["CPUExecutionProvider"])
    (window,) = session.get_inputs()
    _, rows, features = window.shape
    outputs = [output.name for output in session.get_outputs()]
    return Served(models.evidence(name, version), session, window.name, outputs, int(rows), int(features))


def _tensor(node: Any) -> dict[str, object]:
    shape = [size if isinstance(size, int) else -1 for size in node.shape]
    return {"name": node.name, "datatype": DATATYPES[node.type], "shape": shape}
