"""Two plants and a cloud as real processes on loopback, with TLS, recorded data, and a supervisor that starts again what was killed."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil

from connectors.contract import Quality, Sample
from coordinator.client import Client
from coordinator.resources import Event, Task
from gateway.configfile import load
from gateway.preparation import rebuild
from gateway.store import Store
from models.spec import DataSpec, NetworkSpec, RoundsSpec, TaskSpec, TrainingSpec
from tests.chaos.line import Line
from tests.conftest import ROOT, free_port
from trust import pki
from trust.identity import Identity, TrustStore

GATEWAYS = {
    "gateway-a": ("spindles", ("vibration", "temperature"), ("spindle-1", "spindle-2")),
    "gateway-b": ("pumps", ("pressure", "flow", "current"), ("pump-1", "pump-2")),
}
"""Cluster, fields and ends: two clusters of different schemas."""
T = TypeVar("T")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

RUNS, CYCLES = 6, 40
RESTART_S = 0.2

GATEWAY = """
[gateway]
name = "{name}"
data_dir = "data"
[inference]
listen = "127.0.0.1:{port}"
[trust]
identity = "{identity}"
suite = "intl"
[coordinator]
url = "https://127.0.0.1:{line}"

[[source]]
name = "counter"
type = "sql"
url = "sqlite:///{counter}"
table = "readings"
cursor = "id"
every_s = 0.1
tag = [{{ name = "number", column = "id" }}]

[[cluster]]
name = "{cluster}"
rows = {{ on_change = "cycle", wait_s = 0.0 }}
group = "run"
label = {{ field = "wear" }}
field = [{fields}, {{ name = "wear", unit = "um", role = "aux" }}, {{ name = "cycle", role = "aux" }}, {{ name = "run", role = "aux" }}]
"""
END = """
[[source]]
name = "{end}"
type = "sql"
enabled = false
url = "sqlite:///recorded.db"
table = "readings"
cursor = "id"
tag = [{columns}]
[[end]]
name = "{end}"
cluster = "{cluster}"
tags = {{ {tags} }}
"""
COORDINATOR = """
[coordinator]
name = "cloud"
[trust]
identity = "{identity}"
[[listen]]
address = "127.0.0.1:{port}"
suite = "intl"
"""


def spec(seed: int = 0, **rounds: object) -> TaskSpec:
    """A short training of both clusters; a second or two undisturbed."""
    return TaskSpec(
        name="wear",
        seed=seed,
        data=DataSpec(window=4, holdout=0.25),
        network=NetworkSpec(encoder=(128,), trunk=(128,)),  # in blobs, not inline
        training=TrainingSpec(epochs=2, batch_size=32, learning_rate=0.005),
        rounds=RoundsSpec.model_validate({"max": 6, "cluster": 2} | rounds),
    )


class Daemon:
    """One daemon, started again whenever it ends, as systemd would."""

    def __init__(self, folder: Path, room: str) -> None:
        self.name = folder.name
        self.folder = folder
        self.starts = 0
        self.failures = 0
        self._command = [sys.executable, "-m", "cli.main", room, "run", "-c", str(folder / f"{room}.toml")]
        self._process: asyncio.subprocess.Process | None = None
        self._wanted = asyncio.Event()
        self._stopping = False

    async def run(self) -> None:
        """Until cancelled, which ends the daemon as the end of a shift would."""
        try:
            while True:
                await self._wanted.wait()
                with (self.folder / "log").open("ab") as log:
                    self._process = await asyncio.create_subprocess_exec(
                        *self._command, cwd=ROOT, stderr=log, stdout=log, preexec_fn=_end_with_us
                    )
                self.starts += 1
                if await self._process.wait() > 0:
                    self.failures += 1  # nobody killed it
                await asyncio.sleep(RESTART_S)
        finally:
            if self._process is not None and self._process.returncode is None:
                with suppress(ProcessLookupError):
                    self._process.send_signal(signal.SIGCONT)
                    self._process.terminate()
                try:
                    await asyncio.wait_for(self._process.wait(), 20)
                except TimeoutError:
                    self._process.kill()

    def switch(self, on: bool) -> None:
        """Whether it is started again when it ends."""
        self._wanted.set() if on else self._wanted.clear()

    def signal(self, number: signal.Signals) -> bool:
        """Send it a signal. False: it does not run just now."""
        if self._process is None or self._process.returncode is not None:
            return False
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
        return True

    def workers(self) -> list[psutil.Process]:
        """Its worker processes."""
        if self._process is None or self._process.returncode is not None:
            return []
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(self._process.pid).children()
            return [child for child in children if "gateway.worker" in child.cmdline()]
        return []

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None


class Works:
    """The whole installation in one folder. Each gateway reaches the cloud over a `Line` of its own."""

    def __init__(self, folder: Path, extra: Mapping[str, str] | None = None) -> None:
        """``extra`` is appended to the configurations of the gateways it names."""
        self.folder = folder
        self.port = free_port()
        self.inference = {name: free_port() for name in GATEWAYS}
        self._extra = extra or {}
        self.cloud = Daemon(self._cloud(), "coordinator")
        self.lines = {name: Line(self.port) for name in GATEWAYS}
        self.gateways: dict[str, Daemon] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Client]:
        """All daemons and lines at work; gives an operator's client."""
        async with AsyncExitStack() as stack:
            for name, line in self.lines.items():
                await stack.enter_async_context(line)
                self.gateways.setdefault(name, Daemon(self._gateway(name, line.port), "gateway"))
            tasks = [asyncio.create_task(daemon.run()) for daemon in self.daemons()]
            try:
                for daemon in self.daemons():
                    daemon.switch(True)
                issued = self.folder / "ca" / "issued" / "ann"
                identity, trust = Identity.load(issued, "intl"), TrustStore.load(issued, "intl")
                async with Client(f"https://127.0.0.1:{self.port}", identity, trust) as client:
                    await self._enrolled(client)
                    yield client
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def daemons(self) -> list[Daemon]:
        """The cloud, then the gateways."""
        return [self.cloud, *self.gateways.values()]

    async def train(self, client: Client, task: TaskSpec) -> Training:
        """A whole training, however often the cloud is not there meanwhile."""
        submitted = await patient(lambda: client.submit(task))
        return Training(await self.finished(client, submitted.id), await events(client, submitted.id), client)

    async def finished(self, client: Client, task: str) -> Task:
        """The task once it has ended."""
        while True:
            found = await patient(lambda: client.task(task))
            if found.state not in ("submitted", "running"):
                return found
            await asyncio.sleep(0.2)

    def readings(self, gateway: str) -> list[int]:
        """The numbers of the counter that are in the gateway's store, in the order of arrival."""
        database = self.folder / gateway / "data" / "store.db"
        with Store.open(database, read_only=True) as store:
            found: list[int] = []
            after = 0
            while blocks := store.raw_blocks(after):
                after = blocks[-1].id
                for block in blocks:
                    if block.source == "counter":
                        found += [int(sample.value) for sample in block.samples().samples()]  # type: ignore[arg-type]
            return found

    def count(self, gateway: str, first: int, last: int) -> None:
        """The plant writes the numbers ``first`` to ``last`` into the table that the gateway reads."""
        with sqlite3.connect(self.folder / gateway / "counter.db", timeout=30) as database:
            database.executemany("INSERT INTO readings VALUES (?)", [(number,) for number in range(first, last + 1)])
        database.close()

    async def _enrolled(self, client: Client) -> None:
        while len(await patient(client.participants)) < len(GATEWAYS):
            broken = [daemon.folder / "log" for daemon in self.daemons() if daemon.failures > 2]
            assert not broken, f"does not start, see {broken}"
            await asyncio.sleep(0.1)

    def _cloud(self) -> Path:
        authority = self.folder / "ca"
        pki.init(authority, ["intl"], "Test Works")
        pki.issue(authority, pki.Request("cloud", "coordinator", "Test Works", ["127.0.0.1"]))
        pki.issue(authority, pki.Request("ann", "operator", "Test Works"))
        for name in GATEWAYS:
            pki.issue(authority, pki.Request(name, "gateway", "Test Works"))
        folder = self.folder / "cloud"
        folder.mkdir()
        identity = authority / "issued" / "cloud"
        (folder / "coordinator.toml").write_text(COORDINATOR.format(identity=identity, port=self.port))
        return folder

    def _gateway(self, name: str, line: int) -> Path:
        """Configuration, recorded data in the store, and the counter's table."""
        folder = self.folder / name
        folder.mkdir()
        cluster, fields, ends = GATEWAYS[name]
        counter = folder / "counter.db"
        with sqlite3.connect(counter) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE readings (id INTEGER PRIMARY KEY)")
        database.close()
        columns = (*fields, "wear", "cycle", "run")
        units = {"wear": "um"}
        text = GATEWAY.format(
            name=name,
            port=self.inference[name],
            identity=self.folder / "ca" / "issued" / name,
            line=line,
            counter=counter,
            cluster=cluster,
            fields=", ".join(f'{{ name = "{field}" }}' for field in fields),
        )
        for end in ends:
            text += END.format(
                end=end,
                cluster=cluster,
                columns=", ".join(
                    f'{{ name = "{column}", column = "{column}", unit = "{units.get(column, "")}" }}'
                    for column in columns
                ),
                tags=", ".join(f'{column} = "{end}/{column}"' for column in columns),
            )
        (folder / "gateway.toml").write_text(text + self._extra.get(name, ""))
        config = load(folder / "gateway.toml")
        config.gateway.data_dir.mkdir(parents=True, exist_ok=True)
        with Store.open(config.gateway.store) as store:
            for end in ends:
                store.append_raw(end, _recorded(end, fields), None)
            rebuild(config, store)
        return folder


class Training:
    """One training that has ended: what was reported, and the digest of its model."""

    def __init__(self, task: Task, told: list[Event], client: Client) -> None:
        self.task = task
        self.reports = [event.body for event in told if event.kind == "round"]
        self._client = client

    async def digest(self) -> str:
        """SHA-256 of the final parameters."""
        models = await patient(lambda: self._client.models(self.task.name))
        return next(model.digest for model in models if model.task == self.task.id)

    def rounds(self) -> dict[tuple[object, ...], list[object]]:
        """What must be the same in every run, by member, layer, group and round; more than one: a round that counts twice."""
        found: dict[tuple[object, ...], list[object]] = {}
        for report in self.reports:
            key = tuple(report[name] for name in ("member", "layer", "name", "round", "final"))
            found.setdefault(key, []).append(
                [report[name] for name in ("samples", "train_loss", "metrics", "per_end", "missing", "asked")]
            )
        return found


async def patient(call: Callable[[], Awaitable[T]]) -> T:
    """The result of a call to a coordinator that may just be starting again."""
    while True:
        try:
            return await call()
        except Exception as error:
            if getattr(error, "code", "") not in ("FF-COORD-040", "FF-COORD-041"):
                raise
            await asyncio.sleep(0.1)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what another process does."""
    while not await true():  # noqa: ASYNC110 - nothing tells us
        await asyncio.sleep(0.2)


async def events(client: Client, task: str) -> list[Event]:
    """All events of a task that has ended."""

    async def read() -> list[Event]:
        return [event async for event in client.events(task)]

    return await patient(read)


def _end_with_us() -> None:
    """Between fork and exec: where we are killed, the kernel ends the daemon."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _recorded(end: str, fields: tuple[str, ...]) -> list[Sample]:
    """The same samples whenever it is called: runs of a machine that wears out."""
    samples = []
    random = np.random.default_rng(list(end.encode()))
    for run in range(RUNS):
        for cycle in range(CYCLES):
            wear = cycle / CYCLES
            values = {field: float((i + 1) * wear**2 + random.normal(0, 0.05)) for i, field in enumerate(fields)}
            time = (run * CYCLES + cycle + 1) * 1_000_000_000
            row = {**values, "wear": 100 * wear, "cycle": cycle, "run": run}
            samples += [Sample(name, value, Quality.GOOD, time, time) for name, value in row.items()]
    return samples
