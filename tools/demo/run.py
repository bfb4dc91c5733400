"""The demo from the command to the table: processes, ingestion, three trainings, the ceiling, the judgement, a prediction."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import aiohttp
import numpy as np
from rich.console import Console

from common.files import write_atomic
from coordinator.client import Client
from gateway.modelstore import ModelStore
from gateway.store import Store
from models.spec import Layer
from tools.demo import engines, layout, machines, report, score
from tools.demo.job import Job, Source
from tools.demo.layout import LAYERS, Layout
from tools.demo.processes import Processes
from tools.demo.results import Arrived, Compared, Curves, Results
from tools.demo.scenario import EndPlan, Scenario
from tools.demo.screen import TITLES, Screen
from tools.demo.table import Prediction, show
from tools.errors import ToolError
from trust.identity import Identity, TrustStore
from trust.keys import SuiteName

START_S = 90.0
"""Within so many seconds all processes are up and have found each other."""
STALLED_S = 60.0
"""So long without a new row, and ingestion has failed."""
LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    once: bool
    out: Path | None
    data: str
    seed: int
    suite: SuiteName


def run(options: Options) -> None:
    """Run the demo; returns at the table with ``once``, else at Ctrl-C. Raises FedfabError."""
    folder = _folder(options.out)
    scenario = _scenario(options)
    with suppress(KeyboardInterrupt):
        asyncio.run(_guarded(_Demo(options, layout.make(folder, scenario, options.suite))))


async def _guarded(demo: _Demo) -> None:
    """The demo, ended by the end of any of its processes, or by SIGTERM as by Ctrl-C."""
    me = asyncio.current_task()
    if me is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    async with Processes(demo.layout.folder, demo.layout.logs) as processes:
        await _first(demo.story(processes), processes.watch())


async def _first(*works: Coroutine[object, object, None]) -> None:
    """Wait for the first of these to end, cancel the others; its error is raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


@dataclass(slots=True)
class _Demo:
    options: Options
    layout: Layout
    console: Console = field(default_factory=Console)
    curves: Curves = field(default_factory=Curves)
    phases: dict[str, float] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    @property
    def scenario(self) -> Scenario:
        return self.layout.scenario

    async def story(self, processes: Processes) -> None:
        """From there to the table, and on."""
        with Screen(self.console, self.scenario.spec.rounds.max) as screen:
            async with self._client() as client:
                await self._phase(
                    screen, "processes start and find each other", "start", self._connected(client, processes)
                )
                await self._phase(screen, "gateways read the machines", "ingest", self._ingested(screen))
                for layer in LAYERS:
                    await self._phase(screen, f"learning: {TITLES[layer]}", layer, self._learned(client, layer, screen))
            await self._phase(screen, "the ceiling: the same network on joined data", "joined", self._joined(processes))
            screen.enter("judging all models on machines nobody has seen")
            results = await asyncio.to_thread(self._judge)
            prediction = await self._predict()
        self._keep(results, prediction)
        show(self.console, results, prediction, self.layout)
        if not self.options.once:
            self.console.print("serving until Ctrl-C")
            await asyncio.Event().wait()

    async def _phase(self, screen: Screen, title: str, name: str, work: Coroutine[object, object, None]) -> None:
        began = time.monotonic()
        screen.enter(title)
        await work
        self.phases[name] = round(time.monotonic() - began, 1)

    def _client(self) -> Client:
        folder = self.layout.identity(layout.OPERATOR)
        identity = Identity.load(folder, self.layout.suite)
        return Client(self.layout.coordinator_url, identity, TrustStore.load(folder, self.layout.suite))

    async def _connected(self, client: Client, processes: Processes) -> None:
        """Every part is started by its own command, and the gateways are enrolled. Raises ToolError FF-DEMO-002."""
        await processes.start("coordinator", "cli.main", "coordinator", "run", "-c", "coordinator.toml")
        await processes.start("plant", "cli.main", "plant", "-c", "plant.toml")
        waiting = "coordinator and plant to listen"
        try:
            async with asyncio.timeout(START_S):
                await asyncio.gather(*map(self._listening, self.layout.first_ports))
                for gateway in self.scenario.gateways:
                    await processes.start(gateway, "cli.main", "gateway", "run", "-c", f"{gateway}.toml")
                missing = set(self.scenario.gateways)
                while missing:
                    waiting = f"{', '.join(sorted(missing))} to say hello to the coordinator"
                    await asyncio.sleep(LOOK_S / 2)
                    missing -= {one.name for one in await client.participants()}
        except TimeoutError:
            raise ToolError(
                "FF-DEMO-002",
                f"waited {START_S:.0f} s for {waiting}, in vain",
                hint=f"look at the logs in {self.layout.logs}",
            ) from None

    async def _listening(self, port: int) -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(LOOK_S / 2)
            else:
                writer.close()
                return

    async def _ingested(self, screen: Screen) -> None:
        """Every end's recorded runs are complete in its gateway's store. Raises ToolError FF-DEMO-003."""
        before, grown = time.monotonic(), time.monotonic()
        while True:
            stored, readings, complete = await asyncio.to_thread(self._look)
            now = time.monotonic()
            if stored != {name: rows for name, (rows, _) in screen.ends.items()}:
                grown = now
            screen.ingested(
                readings, {end.name: (stored[end.name], end.rows) for end in self.scenario.ends}, now - before
            )
            before = now
            if complete:
                return
            if now - grown > STALLED_S:
                raise ToolError(
                    "FF-DEMO-003",
                    f"no new row for {STALLED_S:.0f} s; rows so far: {stored}",
                    hint=f"look at the gateways' and the plant's logs in {self.layout.logs}",
                )
            await asyncio.sleep(LOOK_S)

    def _look(self) -> tuple[dict[str, int], int, bool]:
        """Rows of each end, readings of all, and whether every end's runs are complete."""
        stored, readings, complete = dict.fromkeys((end.name for end in self.scenario.ends), 0), 0, True
        for gateway in self.scenario.gateways:
            if not self.layout.store(gateway).exists():
                return stored, readings, False
            with Store.open(self.layout.store(gateway), read_only=True) as store:
                counts = store.counts()
                readings += sum(counts["raw"].values())
                for end in self.scenario.ends_at(gateway):
                    stored[end.name] = counts["features"].get(end.name, 0)
                    newest = store.latest(end.name, 1).group.tolist() if stored[end.name] else []
                    complete &= bool(newest) and newest[-1] not in end.runs
        return stored, readings, complete

    async def _learned(self, client: Client, layer: Layer, screen: Screen) -> None:
        """One task, from its submission to its end. Raises ToolError FF-DEMO-006 where it does not finish."""
        task = await client.submit(self.layout.spec(layer))
        async for event in client.events(task.id):
            if event.kind == "round":
                self.curves.add(layer, event.body)
                metrics = event.body["metrics"]
                error = metrics.get("rmse") if isinstance(metrics, dict) else None
                shown = float(error) if isinstance(error, int | float) else None
                screen.round(layer, str(event.body["name"]), int(str(event.body["round"])), shown)
        ended = await client.task(task.id)
        if ended.state != "finished":
            raise ToolError(
                "FF-DEMO-006",
                f'task "{task.name}" is {ended.state}: {ended.reason}',
                hint=f"look at the logs in {self.layout.logs}",
            )

    async def _joined(self, processes: Processes) -> None:
        clusters = self.scenario.clusters
        job = Job(
            spec=self.layout.spec("cloud"),
            schemas={cluster.name: cluster.schema for cluster in clusters},
            sources=[
                Source(end=end.name, cluster=end.cluster, store=self.layout.store(self._gateway(end)))
                for end in self.scenario.ends
            ],
            models={cluster.name: self._joined_model(cluster.name) for cluster in clusters},
        )
        file = self.layout.folder / "joined.json"
        write_atomic(file, job.model_dump_json(indent=1).encode())
        await processes.run("joined", "tools.demo.joined", str(file))

    def _judge(self) -> Results:
        """Every model on the test set of its cluster's kind."""
        test, clusters = self.scenario.test, [cluster.name for cluster in self.scenario.clusters]
        alone = {end.name: self._model("end", end.cluster, end.name) for end in self.scenario.ends}
        ends = {end.name: score.squared_error(alone[end.name], test[end.cluster]) for end in self.scenario.ends}
        own, both, ceiling = (
            {cluster: score.squared_error(path(cluster), test[cluster]) for cluster in clusters}
            for path in (
                lambda cluster: self._model("cluster", cluster, cluster),
                lambda cluster: self._model("cloud", cluster, cluster),
                self._joined_model,
            )
        )
        return Results(
            data=self.scenario.data,
            seed=self.options.seed,
            suite=self.layout.suite,
            ends={name: score.rmse([error]) for name, error in ends.items()},
            clusters={name: score.rmse([error]) for name, error in own.items()},
            federated=score.rmse(both.values()),
            joined=score.rmse(ceiling.values()),
            by_cluster={
                name: Compared(
                    cluster=score.rmse([own[name]]),
                    federated=score.rmse([both[name]]),
                    joined=score.rmse([ceiling[name]]),
                )
                for name in clusters
            },
            rows={end.name: self._arrived(end) for end in self.scenario.ends},
            test_windows={name: len(test[name].y) for name in clusters},
            seconds=round(time.monotonic() - self._began, 1),
            phases=self.phases,
            versions={name: version(name) for name in ("fedfab", "torch", "onnxruntime", "asyncua", "pymodbus")},
        )

    def _arrived(self, end: EndPlan) -> Arrived:
        with Store.open(self.layout.store(self._gateway(end)), read_only=True) as store:
            runs = store.features(end.name).group
        return Arrived(sent=end.rows, stored=int(np.isin(runs, list(end.runs)).sum()))

    def _model(self, layer: Layer, cluster: str, group: str) -> Path:
        """The newest version of a model at its gateway, as a file."""
        folder = self.layout.models(self.scenario.cluster(cluster).gateway)
        name = f"{LAYERS[layer]}-{group}"
        return folder / name / str(ModelStore(folder).versions(name)[-1]) / "model.onnx"

    def _joined_model(self, cluster: str) -> Path:
        return self.layout.folder / "joined" / f"{cluster}.onnx"

    def _gateway(self, end: EndPlan) -> str:
        return self.scenario.cluster(end.cluster).gateway

    async def _predict(self) -> Prediction:
        """Ask the first end's gateway how long its machine lasts, as an MES would."""
        end = self.scenario.ends[0]
        url = f"{self.layout.inference_url(self._gateway(end))}/v2/models/{LAYERS['cloud']}-{end.cluster}/infer"
        body: dict[str, object] = {"parameters": {"end": end.name}}
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
            return Prediction(url, body, response.status, await response.json())

    def _keep(self, results: Results, prediction: Prediction) -> None:
        folder = self.layout.folder
        write_atomic(folder / "results.json", results.model_dump_json(indent=1).encode())
        write_atomic(folder / "curves.json", json.dumps(self.curves.series).encode())
        page = report.page(results, self.curves, self.scenario, prediction)
        write_atomic(folder / "report.html", page.encode())


def _folder(out: Path | None) -> Path:
    """An empty folder. Raises ToolError FF-DEMO-007."""
    if out is None:
        return Path(tempfile.mkdtemp(prefix="fedfab-demo-"))
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise ToolError(
                "FF-DEMO-007", f"the folder {out} is not empty", hint="give another folder with --out, or empty it"
            )
    except OSError as error:
        raise ToolError(
            "FF-DEMO-007", f"{out} cannot be used: {error.strerror}", hint="give another folder with --out"
        ) from error
    return out.resolve()


def _scenario(options: Options) -> Scenario:
    """What is asked for with --data. Raises ToolError FF-DEMO-004, FF-DEMO-005, FF-DEMO-008."""
    name, _, subset = options.data.partition(":")
    if name == "plant" and not subset:
        return machines.scenario(options.seed)
    if name == "cmapss":
        root = Path(__file__).parents[2]
        data = Path(os.environ.get("FEDFAB_DATA", root.parent / "shared" / "data"))
        return engines.scenario(data / "cmapss", (subset or "FD001").upper(), options.seed)
    raise ToolError(
        "FF-DEMO-008", f'expected --data plant, cmapss or cmapss:FDnnn, got "{options.data}"', hint="fedfab demo --help"
    )
