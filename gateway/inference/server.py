"""The HTTP of on-line inference: Open Inference Protocol v2, REST, and `GET /status` of the gateway."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import orjson
import structlog
from aiohttp import web
from numpy.typing import NDArray

from common.errors import FedfabError
from gateway.errors import GatewayError
from gateway.inference import tensors
from gateway.inference.recorder import Prediction, Recorder
from gateway.inference.shelf import Served, Shelf
from gateway.inference.tensors import RefusalError
from models.dataset import Rows
from models.schema import Schema

log = structlog.get_logger()

BODY_MAX = 64 << 20
INLINE_NUMBERS = 1 << 16
"""Windows of more numbers than this leave the event loop: below, the hand-over to a thread costs more than the run."""
STOP_S = 5.0

Latest = Callable[[str, int], Rows]
"""``latest(end, n)``: the newest n feature rows of an end, oldest first."""

Right = Literal["infer", "status", "metrics", "control"]
"""What a client may do: ask for predictions, see the gateway's state, scrape its metrics, or everything that changes something."""

Page = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class InferenceServer:
    """Predictions over HTTP. Needs a model store with models in use; the ends are those of the configuration, by name."""

    def __init__(
        self,
        shelf: Shelf,
        *,
        ends: Mapping[str, Schema],
        latest: Latest,
        recorder: Recorder,
        status: Callable[[], Awaitable[Mapping[str, object]]],
        stale_after_s: float | None = None,
    ) -> None:
        self.shelf = shelf
        self.ends = ends
        self.latest = latest
        self.recorder = recorder
        self.status = status
        self.stale_after_s = stale_after_s
        self._runner = web.AppRunner(self.app(), handle_signals=False, access_log=None, shutdown_timeout=STOP_S)

    def page(self, path: str, right: Right, answer: Page) -> None:
        """Also answer ``GET path`` by ``answer``, for clients that have this right. Call it before `start`."""
        self._runner.app.router.add_get(path, answer)

    def app(self) -> web.Application:
        """The routes, for `start` or for a test client."""
        app = web.Application(client_max_size=BODY_MAX, middlewares=[_refusals])
        model = "/v2/models/{model}"
        app.add_routes(
            [
                web.get("/v2", self._server),
                web.get("/v2/health/live", self._healthy),
                web.get("/v2/health/ready", self._healthy),
                web.get("/v2/models", self._models),
                web.get("/status", self._status),
                *(
                    route
                    for path in (model, model + "/versions/{version}")
                    for route in (
                        web.get(path, self._metadata),
                        web.get(path + "/ready", self._model_ready),
                        web.post(path + "/infer", self._infer),
                    )
                ),
            ]
        )
        return app

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> tuple[str, int]:
        """Load the models in use and listen; answers with the address. Port 0 takes a free one.

        Raises GatewayError FF-INFER-011 when the address cannot be had.
        """
        await self.shelf.load_all()
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port, ssl_context=tls).start()
        except OSError as error:
            raise GatewayError(
                "FF-INFER-011",
                f"cannot listen on {host}:{port} for predictions: {error.strerror}",
                hint="another program, or another gateway, listens there: change [inference] listen, or stop it",
            ) from error
        address: tuple[str, int] = self._runner.addresses[0][:2]
        log.info("inference listens", address=address, tls=tls is not None)
        return address

    async def close(self) -> None:
        """Take no more requests; those under way are answered first."""
        await self._runner.cleanup()

    async def _server(self, request: web.Request) -> web.Response:
        return _json({"name": "fedfab", "version": version("fedfab"), "extensions": []})

    async def _healthy(self, request: web.Request) -> web.Response:
        return _json({"live": True, "ready": True})

    async def _status(self, request: web.Request) -> web.Response:
        return _json(await self.status())

    async def _models(self, request: web.Request) -> web.Response:
        models = self.shelf.models
        found = [(name, models.in_use(name)) for name in models.names()]
        return _json(
            {"models": [{"name": name, "version": str(use.version), "state": "READY"} for name, use in found if use]}
        )

    async def _metadata(self, request: web.Request) -> web.Response:
        served = await self._served(request)
        return _json(served.describe(self.shelf.models.versions(served.evidence.model)))

    async def _model_ready(self, request: web.Request) -> web.Response:
        served = await self._served(request)
        return _json({"name": served.evidence.model, "version": str(served.evidence.version), "ready": True})

    async def _infer(self, request: web.Request) -> web.Response:
        asked = tensors.parse(await request.read())
        served = await self._served(request)
        wanted = _wanted(served, asked)
        if asked.parameters.end is None:
            windows = tensors.window(asked.inputs, served.input_name, served.rows, served.features)
            row_time = None
        else:
            windows, row_time = await asyncio.to_thread(self._stored, served, asked)  # it reads the disk
        inline = windows.size <= INLINE_NUMBERS
        outputs, inputs = _predict(served, windows) if inline else await asyncio.to_thread(_predict, served, windows)
        about = served.evidence
        self.recorder.put(
            Prediction(time.time_ns(), about.model, about.version, asked.parameters.end, row_time, inputs, outputs)
        )
        return _json(_answer(served, asked, row_time, {name: outputs[name] for name in wanted}))

    async def _served(self, request: web.Request) -> Served:
        name, number = request.match_info["model"], request.match_info.get("version")
        return await (self.shelf.current(name) if number is None else self.shelf.version(name, number))

    def _stored(self, served: Served, asked: tensors.Request) -> tuple[NDArray[np.float32], int]:
        """The latest window of the end, shape (1, rows, features), and the time of its newest row.

        It lies in one run: rows of the run before, and rows with a missing value, never enter it, as in training.
        """
        end = self._end(served, asked)
        rows = self.latest(end, 2 * served.rows)
        usable = ~np.isnan(rows.x).any(axis=1) & ~np.isnan(rows.group)
        index = np.flatnonzero(usable)
        if len(index):
            index = index[rows.group[index] == rows.group[index[-1]]][-served.rows :]
        if len(index) < served.rows:
            raise RefusalError(
                409,
                "FF-INFER-009",
                f'end "{end}" has {len(index)} usable rows in its present run, model {served.evidence.model} needs {served.rows}',
                hint="wait until the machine has delivered more, or look at /status: does its source read?",
            )
        newest = int(rows.time[index[-1]])
        age_s, limit_s = time.time() - newest / 1e9, asked.parameters.max_age_s or self.stale_after_s
        if limit_s is not None and age_s > limit_s:
            raise RefusalError(
                409,
                "FF-INFER-010",
                f'the newest row of end "{end}" is {age_s:.1f} s old, at most {limit_s:g} s are allowed',
                hint="look at /status: does its source read? The limit is max_age_s of the request, or stale_after_s of the gateway",
            )
        return rows.x[index].astype(np.float32)[None], newest

    def _end(self, served: Served, asked: tensors.Request) -> str:
        end = str(asked.parameters.end)
        if asked.inputs:
            raise RefusalError(400, "FF-INFER-004", 'give either "inputs" or the parameter "end", not both')
        schema = self.ends.get(end)
        if schema is None:
            raise RefusalError(
                404, "FF-INFER-008", f'no end "{end}" at this gateway; it has {", ".join(sorted(self.ends))}'
            )
        difference = served.evidence.data_schema.difference(schema)
        if difference is not None:
            raise RefusalError(
                409, "FF-INFER-008", f'end "{end}" does not fit model {served.evidence.model}: {difference}',
                hint="ask the model of the end's own cluster; GET /v2/models lists them",
            )  # fmt: skip
        return end


def _predict(served: Served, windows: NDArray[np.float32]) -> tuple[dict[str, NDArray[Any]], str]:
    """Outputs by name, and the digest of the inputs for the results layer."""
    return served.run(windows), hashlib.sha256(windows.tobytes()).hexdigest()


def _wanted(served: Served, asked: tensors.Request) -> list[str]:
    names = served.output_names
    unknown = [output.name for output in asked.outputs if output.name not in names]
    if unknown:
        raise RefusalError(400, "FF-INFER-004", f"outputs {unknown} do not exist; the model has {names}")
    return [output.name for output in asked.outputs] or names


def _answer(
    served: Served, asked: tensors.Request, row_time: int | None, outputs: Mapping[str, NDArray[Any]]
) -> dict[str, object]:
    answer: dict[str, object] = {
        "model_name": served.evidence.model,
        "model_version": str(served.evidence.version),
        "outputs": [tensors.encode(name, array) for name, array in outputs.items()],
    }
    if asked.id is not None:
        answer["id"] = asked.id
    if row_time is not None:
        moment = np.datetime_as_string(np.datetime64(row_time, "ns"), unit="ms")
        answer["parameters"] = {"end": asked.parameters.end, "row_time": f"{moment}Z"}
    return answer


@web.middleware
async def _refusals(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except FedfabError as error:
        status = error.status if isinstance(error, RefusalError) else 500
        if status == 500:
            log.error("request failed", path=request.path, error=str(error))
        return _json({"error": f"{error.code}: {error.message}", "code": error.code, "hint": error.hint}, status)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _json({"error": f"{request.method} {request.path}: {error.reason}"}, error.status)


def _json(content: object, status: int = 200) -> web.Response:
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    return web.Response(body=body, status=status, content_type="application/json")
