"""Loaded models. A promotion is seen at the next request; the session before lives on, for requests under way and for a roll-back."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
import structlog
from numpy.typing import NDArray

from common.errors import FedfabError
from gateway.inference.refusal import RefusalError
from gateway.modelstore import Evidence, ModelStore
from models.schema import Schema

log = structlog.get_logger()

OLD_SESSIONS = 8
DATATYPES = {"tensor(float)": "FP32", "tensor(double)": "FP64", "tensor(int64)": "INT64"}
RISE = 1.02
"""How quickly the estimate of what a window takes follows slower runs; it follows quicker ones at once."""

SAMPLE = 16
"""Windows of the runs by which a model is timed when it is loaded: one alone would show what a run costs, not what a window adds."""
QUICK_S = 2e-3
"""A model that takes longer for one window is not for the event loop anyhow, and need not be timed better."""
RETRY_S = 10.0
"""A version that could not be loaded is tried again after this."""

Stamp = tuple[int, int]
Limits = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(slots=True, eq=False)
class Served:
    """One version of one model, ready to run."""

    evidence: Evidence
    session: onnxruntime.InferenceSession
    input_name: str
    output_names: list[str]
    rows: int
    """Rows in a window."""
    features: int
    about: Mapping[str, object]
    """Name and version, as every answer has them."""
    parameters: Mapping[str, object]
    """Where the version comes from, as every answer says it."""
    load_s: float
    window_s: float = 0.0
    """CPU time that a run takes for one window, where it has many."""
    fits: dict[str, Schema] = field(default_factory=dict)
    """Of each end the schema that was last found to be this model's."""
    _limits: tuple[float, Limits] | None = None

    @property
    def version(self) -> str:
        """Its number, as the protocol has it."""
        return str(self.about["model_version"])

    def run(self, windows: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Outputs by name for ``windows`` (n, rows, features)."""
        return dict(zip(self.output_names, self.session.run(None, {self.input_name: windows}), strict=True))

    def ran(self, windows: int, cpu_s: float) -> None:
        """Remember what a run took."""
        self.window_s = min(cpu_s / windows, self.window_s * RISE)

    def limits(self, sigma: float) -> Limits:
        """Lowest and highest value [features] that is not unusual: ``sigma`` standard deviations about the mean in training."""
        if self._limits is None or self._limits[0] != sigma:
            self._limits = sigma, _limits(self.evidence, sigma)
        return self._limits[1]

    def describe(self, versions: list[int], in_use: int | None) -> dict[str, object]:
        """Metadata as the protocol has it; under ``parameters`` the fields of a row, and the evidence of this version."""
        schema = self.evidence.data_schema
        return {
            "name": self.evidence.model,
            "versions": [str(version) for version in versions],
            "platform": "onnxruntime_onnx",
            "inputs": [_tensor(node) for node in self.session.get_inputs()],
            "outputs": [_tensor(node) for node in self.session.get_outputs()],
            "parameters": {
                "version_in_use": None if in_use is None else str(in_use),
                "fields": [each.model_dump() for each in schema.fields],
                "label": schema.label.model_dump(),
                "evidence": self.evidence.model_dump(mode="json", exclude={"data_schema"}),
            },
        }


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why the version that is to be in use is not served."""

    stamp: Stamp
    at: float
    error: RefusalError

    def holds(self, stamp: Stamp) -> bool:
        """Whether trying again would hardly help: the same version, a moment later."""
        return stamp == self.stamp and time.monotonic() < self.at + RETRY_S


class Shelf:
    """The models in use, loaded, and a few older versions that were in use before or that somebody asked for."""

    def __init__(self, models: ModelStore) -> None:
        self.models = models
        self._current: dict[str, tuple[Stamp, Served]] = {}
        self._old: OrderedDict[tuple[str, int], Served] = OrderedDict()
        self._failures: dict[str, _Failure] = {}
        self._seen: set[str] = set()
        """Models whose stamp was looked at in this turn of the event loop."""
        self._loading = asyncio.Lock()

    async def load_all(self) -> None:
        """Load every model in use; one that cannot be loaded is logged and does not keep the others from serving."""
        for name in self.models.names():
            if self.models.stamp(name) is None:
                continue
            try:
                await self.current(name)
            except (FedfabError, OSError, ValueError) as error:
                log.error("model not served", model=name, error=str(error))

    def loaded(self, name: str) -> Served | None:
        """The version of ``name`` in use, where it is loaded already: no waiting, one `stat` in a turn of the event loop.

        A request that is read in a turn was sent before it began, so what one finds there holds for all.
        """
        loaded = self._current.get(name)
        if loaded is None or name in self._seen:
            return loaded and loaded[1]
        if loaded[0] != self.models.stamp(name):
            return None
        if not self._seen:
            asyncio.get_running_loop().call_soon(self._seen.clear)
        self._seen.add(name)
        return loaded[1]

    async def current(self, name: str) -> Served:
        """The version of ``name`` in use. Raises RefusalError FF-INFER-001 when there is none, -012 when it cannot be loaded.

        A version that cannot be loaded is logged once, and the one before it goes on serving.
        """
        if (served := self.loaded(name)) is not None:
            return served
        async with self._loading:
            stamp, before = self.models.stamp(name), self._current.get(name)
            if stamp is None:
                raise self._unknown(name)
            failure = self._failures.get(name)
            if before is None and failure is not None and failure.holds(stamp):
                raise failure.error
            if before is None or before[0] != stamp:
                self._current[name] = stamp, await self._swap(name, stamp, before[1] if before else None)
            return self._current[name][1]

    async def version(self, name: str, version: str) -> Served:
        """A given version of ``name``, in use or not. Raises RefusalError FF-INFER-001, -002 or -012."""
        current = await self.current(name)
        if version == str(current.evidence.version):
            return current
        known = self.models.versions(name)
        if not version.isdigit() or int(version) not in known:
            raise RefusalError(
                404, "FF-INFER-002", f"model {name} has no version {version}; it has {', '.join(map(str, known))}"
            )
        async with self._loading:
            served = self._old.get((name, int(version))) or await self._load(name, int(version))
            self._keep(served)
            return served

    def in_use(self) -> list[Served]:
        """Every model that is served now."""
        return [served for _, served in list(self._current.values())]

    async def index(self) -> list[dict[str, str]]:
        """Every model that is to be served, with ``state`` READY or UNAVAILABLE and, where something is wrong, the ``reason``."""
        found = []
        for name in self.models.names():
            if self.models.stamp(name) is None:
                continue
            try:
                served = await self.current(name)
                entry = {"name": name, "version": str(served.evidence.version), "state": "READY"}
            except FedfabError as error:
                entry = {"name": name, "version": "", "state": "UNAVAILABLE", "reason": error.message}
            if name in self._failures:
                entry["reason"] = self._failures[name].error.message
            found.append(entry)
        return found

    async def _swap(self, name: str, stamp: Stamp, old: Served | None) -> Served:
        in_use = self.models.in_use(name)
        if in_use is None:
            raise self._unknown(name)
        try:
            new = self._old.pop((name, in_use.version), None) or await self._load(name, in_use.version)
        except RefusalError as error:
            self._failures[name] = _Failure(stamp, time.monotonic(), error)
            if old is None:
                raise
            serving = old.evidence.version
            log.error(
                "new version not served", model=name, version=in_use.version, error=error.message, serving=serving
            )
            return old
        self._failures.pop(name, None)
        if old is not None and old is not new:
            self._keep(old)
        log.info("model in use", model=name, version=in_use.version, why=in_use.why)
        return new

    async def _load(self, name: str, version: int) -> Served:
        try:
            return await asyncio.to_thread(_load, self.models, name, version)
        except Exception as error:  # whatever is wrong with the file, the others are served
            raise RefusalError(
                503,
                "FF-INFER-012",
                f"model {name} version {version} cannot be loaded: {error}",
                hint=f"put another version in use: fedfab gateway model promote {name} VERSION",
            ) from error

    def _keep(self, served: Served) -> None:
        key = served.evidence.model, served.evidence.version
        self._old[key] = served
        self._old.move_to_end(key)
        while len(self._old) > OLD_SESSIONS:
            self._old.popitem(last=False)

    def _unknown(self, name: str) -> RefusalError:
        known = ", ".join(name for name in self.models.names() if self.models.stamp(name)) or "none yet"
        return RefusalError(
            404, "FF-INFER-001", f"no model {name} is in use here; in use: {known}", hint="GET /v2/models lists them"
        )


def _load(models: ModelStore, name: str, version: int) -> Served:
    started = time.perf_counter()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(models.model(name, version), options, providers=["CPUExecutionProvider"])
    (window,) = session.get_inputs()
    _, rows, features = window.shape
    evidence = models.evidence(name, version)
    about = {"model_name": name, "model_version": str(version)}
    parameters = {
        "task": evidence.task,
        "task_id": evidence.task_id,
        "round": evidence.round,
        "model_digest": evidence.model_digest,
    }
    outputs = [output.name for output in session.get_outputs()]
    served = Served(evidence, session, window.name, outputs, int(rows), int(features), about, parameters, 0.0)
    served.run(np.zeros((1, served.rows, served.features), np.float32))  # the first run allocates
    served.window_s = _cpu_s(served, 1)
    if served.window_s < QUICK_S:
        served.window_s = min(served.window_s, *(_cpu_s(served, SAMPLE) for _ in range(3)))
    served.load_s = time.perf_counter() - started
    return served


def _cpu_s(served: Served, windows: int) -> float:
    some = np.zeros((windows, served.rows, served.features), np.float32)
    started = time.thread_time()
    served.run(some)
    return (time.thread_time() - started) / windows


def _limits(evidence: Evidence, sigma: float) -> Limits:
    spreads = [evidence.inputs.get(each.name) for each in evidence.data_schema.fields]
    most = float(np.finfo(np.float32).max)
    low = [-most if spread is None else max(spread.mean - sigma * spread.std, -most) for spread in spreads]
    high = [most if spread is None else min(spread.mean + sigma * spread.std, most) for spread in spreads]
    return np.array(low, np.float32), np.array(high, np.float32)


def _tensor(node: Any) -> dict[str, object]:
    shape = [size if isinstance(size, int) else -1 for size in node.shape]
    return {"name": node.name, "datatype": DATATYPES[node.type], "shape": shape}
