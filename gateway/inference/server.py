"""On-line inference over HTTP: Open Inference Protocol v2, REST, and the pages of other parts of the gateway on the same port.

aiohttp's low-level server, not its application: the few paths are told apart by hand, which costs a third less for each request.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog
from aiohttp import web
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from common.errors import FedfabError
from common.listener import Listener
from gateway.config.inference import Inference, Right
from gateway.config.member import Trust
from gateway.errors import GatewayError, as_json
from gateway.inference import control, tls
from gateway.inference.access import Access, Caller
from gateway.inference.calls import Calls, answer
from gateway.inference.intake import Intake
from gateway.inference.lanes import Lanes
from gateway.inference.latest import AtHand, Latest, LatestWindows
from gateway.inference.metrics import Metrics
from gateway.inference.protocol import HEADER_LENGTH
from gateway.inference.recorder import Recorder
from gateway.inference.refusal import RefusalError
from gateway.inference.shelf import Shelf
from models.schema import Schema

log = structlog.get_logger()

STOP_S = 5.0
HUNG_UP = 499
"""Counted as the status of a request whose client did not wait for the answer."""

Page = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""Answers a GET; may raise FedfabError, which becomes a JSON answer."""


class InferenceServer:
    """Predictions over HTTP. Needs a model store with models in use; the ends are those of the configuration, by name."""

    def __init__(
        self,
        shelf: Shelf,
        *,
        ends: Mapping[str, Schema],
        latest: Latest,
        at_hand: AtHand = lambda end, n: None,
        recorder: Recorder,
        status: Callable[[], Awaitable[Mapping[str, object]]],
        settings: Inference | None = None,
        trust: Trust | None = None,
        control_socket: Path | None = None,
    ) -> None:
        settings = settings or Inference()
        self.shelf = shelf
        self.recorder = recorder
        self.metrics = Metrics()
        self._control = control_socket
        self._pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="inference")
        self._access = Access(settings, tls.names(settings, trust))
        self._intake = Intake(settings)
        self._lanes = Lanes(self._pool, self.metrics)
        self._windows = LatestWindows(self._pool, ends, latest, at_hand)
        self._calls = Calls(shelf, self._lanes, self._windows, recorder=recorder, metrics=self.metrics, pool=self._pool)
        self._pages: dict[str, tuple[Right, Page]] = {}
        self._failing: set[str] = set()
        """Codes of failures that were logged since the last prediction."""
        self.apply(settings, trust)

        async def state(_: web.BaseRequest) -> web.Response:
            return answer(await status())

        self.page("/status", "status", state)
        # a signature covers the body as it was sent, so it is unpacked here
        serving = web.Server(self.handle, access_log=None, handler_cancellation=True, auto_decompress=False)
        self._runner = web.ServerRunner(serving, shutdown_timeout=STOP_S)
        self._listener = Listener(self._runner)

    @property
    def ends(self) -> Mapping[str, Schema]:
        """Schema of each end whose latest window may be asked; may be set while it serves."""
        return self._windows.ends

    @ends.setter
    def ends(self, ends: Mapping[str, Schema]) -> None:
        self._windows.ends = ends

    def page(self, path: str, right: Right, page: Page) -> None:
        """Also answer ``GET path`` by ``page``, for clients that have this right. Again for a path: the new one counts.

        A path such as ``/tasks/`` answers for all below it.
        """
        self._pages[path] = right, page

    def apply(self, settings: Inference, trust: Trust | None = None) -> None:
        """Go by these settings from the next request on; where it listens, and by what TLS, is changed by `listen`.

        The number of threads is that of the start. Raises SecretError or GatewayError FF-INFER-017; then nothing has changed.
        """
        self._access.apply(settings, tls.names(settings, trust))
        self._intake.apply(settings)
        self._lanes.max_queue, self._lanes.max_batch = settings.max_queue, settings.max_batch
        self._lanes.sigma = settings.range_sigma
        self._windows.stale_after_s, self._windows.flag_stale = settings.stale_after_s, settings.on_stale == "flag"
        self._calls.timeout_s = settings.timeout_s

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> tuple[str, int]:
        """Load the models in use and listen; answers with the address. Port 0 takes a free one.

        Raises GatewayError FF-INFER-011 when the address cannot be had.
        """
        await self.shelf.load_all()
        await self._runner.setup()
        address = await self.listen(host, port, tls)
        if self._control is not None:
            await control.listen(self._runner, self._control)
        return address

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> tuple[str, int]:
        """Move to another address, or to other TLS, while requests are answered. Raises as `start` does; then nothing changed."""
        try:
            address = await self._listener.open(host, port, tls)
        except OSError as error:
            raise GatewayError(
                "FF-INFER-011",
                f"cannot listen on {host}:{port} for predictions: {error.strerror}",
                hint="another program, or another gateway, listens there: change [inference] listen, or stop it",
            ) from error
        log.info("inference listens", address=address, tls=tls is not None)
        return address

    async def close(self) -> None:
        """Take no more requests; those under way are answered first."""
        await self._listener.close()
        await self._runner.cleanup()
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._control is not None:
            control.remove(self._control)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request."""
        started = time.perf_counter()
        try:
            match request.rel_url.raw_path.split("/")[1:]:
                case ["v2", "models", name, "infer"] if request.method == "POST":
                    return await self._infer(request, name, None, started)
                case ["v2", "models", name, "versions", number, "infer"] if request.method == "POST":
                    return await self._infer(request, name, number, started)
                case path:
                    return await self._other(request, path)
        except RefusalError as refusal:
            return self._refused(request, refusal)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return answer({"error": f"{request.method} {request.path}: {error.reason}"}, error.status)
        except Exception as error:
            return self._failed(request, error)

    def collect(self) -> Iterator[Metric]:
        """Metrics of inference and of the results layer's queue."""
        yield from self.metrics.collect()
        depth = GaugeMetricFamily("fedfab_inference_queue_depth", "Requests waiting for a model.", labels=["model"])
        for name, waiting in self._lanes.waiting().items():
            depth.add_metric([name], waiting)
        load = GaugeMetricFamily(
            "fedfab_inference_model_load_seconds", "Time to load a model in use.", labels=["model"]
        )
        in_use = GaugeMetricFamily("fedfab_inference_model_info", "Models in use.", labels=["model", "version", "task"])
        for served in self.shelf.in_use():
            about = served.evidence
            load.add_metric([about.model], served.load_s)
            in_use.add_metric([about.model, served.version, about.task], 1)
        yield from (depth, load, in_use)
        for name, what, value in (
            ("queue_limit", "Requests that may wait for one model.", self._lanes.max_queue),
            ("in_flight", "Requests under way.", self._intake.requests),
            ("in_flight_limit", "Requests that may be under way.", self._intake.max_requests),
            ("in_flight_bytes", "Bodies of the requests under way.", self._intake.bytes),
        ):
            yield GaugeMetricFamily(f"fedfab_inference_{name}", what, value=value)
        yield CounterMetricFamily(
            "fedfab_results_written", "Answers kept in the results layer.", value=self.recorder.written
        )
        yield CounterMetricFamily("fedfab_results_dropped", "Answers that were not kept.", value=self.recorder.dropped)

    async def _infer(self, request: web.BaseRequest, name: str, number: str | None, started: float) -> web.Response:
        model, version, status = "", "", 500
        try:
            caller = self._access.caller(request, "infer")
            taken = self._intake.admit(request)
            try:
                body = await self._body(request, caller)
                served = await self._calls.served(name, number)
                model, version = served.evidence.model, served.version
                header_length = request.headers.get(HEADER_LENGTH)
                response = await self._calls.infer(served, body, header_length, caller.name, started)
            finally:
                self._intake.release(taken)
            status = response.status
            self.metrics.model(model).total.add(time.perf_counter() - started)
            self.metrics.sent_bytes += response.content_length or 0
            self._failing.clear()
            return response
        except RefusalError as refusal:
            status = refusal.status
            raise
        except asyncio.CancelledError:
            status = HUNG_UP
            raise
        finally:
            self.metrics.answered(model, version, status)

    async def _body(self, request: web.BaseRequest, caller: Caller) -> bytes:
        """The body, by who says he is, unpacked."""
        sent = await self._intake.body(request)
        self.metrics.received_bytes += len(sent)
        self._access.prove(caller, request, sent)
        return self._intake.unpacked(sent, request.headers.get("Content-Encoding"))

    async def _other(self, request: web.BaseRequest, path: list[str]) -> web.StreamResponse:
        """Everything but predictions: not on the way of every request."""
        match request.method, path:
            case "GET", ["v2", "health", "live"]:
                return answer({"live": True})
            case "GET", ["v2", "health", "ready"]:
                return await self._calls.ready()
            case "GET", ["v2", *rest]:
                await self._proved(request, "infer")
                return await self._protocol(request, rest)
            case "POST", ["v2", "repository", "index"]:
                return await self._calls.index(await self._proved(request, "infer"))
            case "GET", [top, *_] if found := self._pages.get(request.rel_url.raw_path) or self._pages.get(f"/{top}/"):
                right, page = found
                await self._proved(request, right)
                return await page(request)
        raise web.HTTPNotFound

    async def _protocol(self, request: web.BaseRequest, path: list[str]) -> web.Response:
        calls = self._calls
        match path:
            case []:
                return calls.server()
            case ["models"]:
                return await calls.models()
            case ["models", "stats"]:
                return await calls.statistics(None, None)
            case ["models", name, "versions", number, *what]:
                return await calls.about(name, number, what)
            case ["models", name, *what]:
                return await calls.about(name, None, what)
        raise web.HTTPNotFound

    async def _proved(self, request: web.BaseRequest, right: Right) -> bytes:
        """The body of somebody who may do this."""
        caller = self._access.caller(request, right)
        taken = self._intake.admit(request)
        try:
            return await self._body(request, caller)
        finally:
            self._intake.release(taken)

    def _refused(self, request: web.BaseRequest, refusal: RefusalError) -> web.Response:
        if refusal.status in {401, 403}:
            self.metrics.deny(refusal.code)
            self._access.denied(request, refusal)
        headers = {} if refusal.retry_after_s is None else {"Retry-After": str(refusal.retry_after_s)}
        response = _told(refusal, refusal.status, headers)
        if refusal.status in {408, 413}:
            response.force_close()  # the rest of its body is not read
        return response

    def _failed(self, request: web.BaseRequest, error: Exception) -> web.Response:
        """What is the gateway's own fault: logged with its whole story the first time, and again after the next prediction."""
        code = as_json(error)["code"]
        if code not in self._failing:
            known = isinstance(error, FedfabError)
            log.error("request failed", path=request.path, error=str(error), exc_info=None if known else error)
            self._failing.add(code)
        return _told(error, 500, {})


def _told(error: Exception, status: int, headers: Mapping[str, str]) -> web.Response:
    about = as_json(error)
    return answer({"error": f"{about['code']}: {about['message']}", **about}, status, headers)
