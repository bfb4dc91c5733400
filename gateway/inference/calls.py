"""The calls of the Open Inference Protocol v2: what each one answers. Who may ask, and how much, is decided before."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from importlib.metadata import version
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import orjson
from aiohttp import web
from numpy.typing import NDArray

from gateway.inference import protocol, tensors
from gateway.inference.lanes import Lanes, Run
from gateway.inference.latest import LatestWindows
from gateway.inference.metrics import Metrics
from gateway.inference.protocol import HEADER_LENGTH, Request
from gateway.inference.recorder import Recorder
from gateway.inference.refusal import RefusalError
from gateway.inference.shelf import Served, Shelf
from gateway.store import Result

INLINE_BYTES = 1 << 19
"""A larger body is read in a thread."""
EXTENSIONS = ["binary_tensor_data", "model_repository(index)", "statistics"]
JSON = {"Content-Type": "application/json"}

T = TypeVar("T")


class Calls:
    """Answers from loaded models. `timeout_s` may be changed at any time."""

    def __init__(
        self,
        shelf: Shelf,
        lanes: Lanes,
        windows: LatestWindows,
        *,
        recorder: Recorder,
        metrics: Metrics,
        pool: Executor,
    ) -> None:
        self.timeout_s = 0.0
        self._shelf = shelf
        self._lanes = lanes
        self._windows = windows
        self._recorder = recorder
        self._metrics = metrics
        self._pool = pool

    def server(self) -> web.Response:
        """What this server is."""
        return answer({"name": "fedfab", "version": version("fedfab"), "extensions": EXTENSIONS})

    async def ready(self) -> web.Response:
        """200 when every model in use can be asked, else 503 with those that cannot."""
        missing = [entry for entry in await self._shelf.index() if entry["state"] != "READY"]
        return answer({"ready": not missing, "unavailable": missing}, 503 if missing else 200)

    async def models(self) -> web.Response:
        """The models in use."""
        return answer({"models": await self._shelf.index()})

    async def index(self, body: bytes) -> web.Response:
        """The repository index (model repository extension); with ``{"ready": true}`` only models that can be asked."""
        wanted = orjson.loads(body) if body.strip() else {}
        entries = await self._shelf.index()
        if isinstance(wanted, dict) and wanted.get("ready") is True:
            entries = [entry for entry in entries if entry["state"] == "READY"]
        return answer(entries)

    async def about(self, name: str, number: str | None, what: list[str]) -> web.Response:
        """What ``/v2/models/NAME[/versions/V]`` and the paths below it tell."""
        match what:
            case []:
                return await self.metadata(name, number)
            case ["ready"]:
                return await self.model_ready(name, number)
            case ["stats"]:
                return await self.statistics(name, number)
        raise web.HTTPNotFound

    async def metadata(self, name: str, number: str | None) -> web.Response:
        """Tensors, fields and evidence of a model."""
        served = await self.served(name, number)
        in_use = self._shelf.models.in_use(name)
        return answer(served.describe(self._shelf.models.versions(name), in_use.version if in_use else None))

    async def model_ready(self, name: str, number: str | None) -> web.Response:
        """200 when the model can be asked."""
        served = await self.served(name, number)
        return answer({"name": name, "version": str(served.evidence.version), "ready": True})

    async def statistics(self, name: str | None, number: str | None) -> web.Response:
        """Counts and times of one model or all (statistics extension)."""
        found = self._shelf.in_use() if name is None else [await self.served(name, number)]
        about = [(served.evidence.model, str(served.evidence.version)) for served in found]
        return answer({"model_stats": [self._metrics.statistics(*each) for each in about]})

    async def served(self, name: str, number: str | None) -> Served:
        """The model that is asked. Raises RefusalError FF-INFER-001, -002 or -012."""
        if number is not None:
            return await self._shelf.version(name, number)
        return self._shelf.loaded(name) or await self._shelf.current(name)

    async def infer(
        self, served: Served, body: bytes, header_length: str | None, client: str, started: float
    ) -> web.Response:
        """Predictions. ``started`` is when the request came, by `time.perf_counter`."""
        small = len(body) <= INLINE_BYTES
        asked, given = (
            _read(served, body, header_length) if small else await self._aside(_read, served, body, header_length)
        )
        wanted = _wanted(served, asked)
        about: dict[str, object] = {"client": client} if client else {}
        said: dict[str, object] = {}
        if given is None:
            window = await self._windows.window(served, asked.end or "", asked.max_age_s)
            windows, said = window.x, window.describe(asked.end or "")
            about["row_time"] = window.row_time
            if window.stale:
                self._metrics.flag(served.evidence.model, "stale")
                about["stale"] = True
        else:
            windows = given
        timeout_s = min(asked.timeout_s or self.timeout_s, self.timeout_s)
        run = await self._lanes.run(served, windows, timeout_s)
        if run.unusual is not None:
            self._metrics.flag(served.evidence.model, "out_of_range")
            fields = zip(served.evidence.data_schema.fields, run.unusual.tolist(), strict=True)
            said["out_of_range"] = about["out_of_range"] = [field.name for field, unusual in fields if unusual]
        about["latency_s"] = int(1e6 * (time.perf_counter() - started)) / 1e6
        small = windows.nbytes <= INLINE_BYTES
        digest = _digest(windows) if small else await self._aside(_digest, windows)
        outputs = {**run.outputs, **about}
        self._recorder.put(
            Result(time.time_ns(), served.evidence.model, served.version, asked.end or "", digest, outputs)
        )
        return _written(served, asked, wanted, run, said)

    async def _aside(self, work: Callable[..., T], *given: object) -> T:
        """Do it in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *given)


def answer(content: object, status: int = 200, headers: Mapping[str, str] = MappingProxyType({})) -> web.Response:
    """A JSON answer."""
    body = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)
    return web.Response(body=body, status=status, headers={**JSON, **headers})


def _read(served: Served, body: bytes, header_length: str | None) -> tuple[Request, NDArray[np.float32] | None]:
    """The request and its windows; None where it brings none and names an end instead."""
    asked = protocol.parse(body, header_length)
    if asked.end is not None:
        if asked.inputs:
            raise RefusalError(400, "FF-INFER-004", 'give either "inputs" or the parameter "end", not both')
        return asked, None
    return asked, tensors.window(asked.inputs, served.input_name, served.rows, served.features)


def _digest(windows: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(windows).data).hexdigest()


def _wanted(served: Served, asked: Request) -> dict[str, bool]:
    """Which outputs the answer has, and whether as binary."""
    if not asked.outputs:
        return dict.fromkeys(served.output_names, asked.binary)
    unknown = [name for name, _ in asked.outputs if name not in served.output_names]
    if unknown:
        raise RefusalError(400, "FF-INFER-004", f"outputs {unknown} do not exist; the model has {served.output_names}")
    return dict(asked.outputs)


def _written(
    served: Served, asked: Request, wanted: dict[str, bool], run: Run, said: dict[str, object]
) -> web.Response:
    document = dict(served.about)
    if asked.id is not None:
        document["id"] = asked.id
    document["parameters"] = {**said, **served.parameters} if said else served.parameters
    binary = frozenset(name for name, raw in wanted.items() if raw)
    body, length = protocol.encode(document, {name: run.outputs[name] for name in wanted}, binary)
    if not length:
        return web.Response(body=body, headers=JSON)
    return web.Response(body=body, headers={"Content-Type": "application/octet-stream", HEADER_LENGTH: str(length)})
