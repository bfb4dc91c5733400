"""A cloud and two plants at work for a long time: what grows that should not?

    .venv/bin/python -m bench.soak.run [--minutes 10 | --hours 24]

Real processes on loopback (`tests.chaos`), a simulated plant behind OPC UA and Modbus, trainings one after another, predictions all the
time, a changed configuration now and then. Every few seconds memory, descriptors, threads, sizes on disk and latency are sampled; at the
end a line is fitted to each. Figures go to results/soak.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import numpy as np
import psutil
from rich.console import Console

from bench.soak.slopes import Series, table
from coordinator.client import Client
from tests.chaos.works import Daemon, Works, spec
from tests.conftest import ROOT, free_port

HERE = Path(__file__).parent
SAMPLE_S = 5.0
PREDICTIONS_S = 0.05
RELOAD_S = 60.0
MACHINES = 10

PLANT = """
[plant]
seed = 7
tick_s = 0.25
[opcua]
endpoint = "opc.tcp://127.0.0.1:{opcua}/plant"
[modbus]
host = "127.0.0.1"
port = {modbus}
"""
OPCUA_FIELDS = ("vibration", "temperature", "current", "speed", "quality", "run", "cycle")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--hours", type=float, default=0.0)
    options = parser.parse_args()
    seconds = options.hours * 3600 or options.minutes * 60
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder))
        asyncio.run(soak.run(seconds))
    (HERE / "results").mkdir(exist_ok=True)
    result = {
        "seconds": seconds,
        "trainings": soak.trainings,
        "predictions": soak.predictions,
        "failed_predictions": soak.failed,
        "reloads": soak.reloads,
        "own_failures": soak.own_failures,
        "slopes": {name: series.summary() for name, series in soak.series.items()},
        "samples": {name: series.points for name, series in soak.series.items()},
    }
    (HERE / "results" / "soak.json").write_text(json.dumps(result, indent=1))
    console = Console()
    console.print(table(soak.series))
    console.print({name: value for name, value in result.items() if name not in ("slopes", "samples")})
    sys.exit(1 if soak.own_failures or soak.failed or any(one.suspicious for one in soak.series.values()) else 0)


class Soak:
    """The works, what keeps them busy, and what is seen of them."""

    def __init__(self, folder: Path) -> None:
        opcua, modbus = free_port(), free_port()
        self.plant = folder / "plant.toml"
        self.plant.write_text(_plant(opcua, modbus))
        self.works = Works(folder, {"gateway-a": _sources(opcua, modbus)})
        self.series: dict[str, Series] = {}
        self.trainings = self.predictions = self.failed = self.reloads = self.own_failures = 0
        self._latencies: list[float] = []

    async def run(self, seconds: float) -> None:
        """Keep all busy for so long, and sample."""
        async with self._plant(), self.works.running() as client:
            await self.works.train(client, spec())  # there is a model to ask from here on
            jobs = [asyncio.create_task(job) for job in (self._train(client), self._predict(), self._reload())]
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                await asyncio.sleep(SAMPLE_S)
                await asyncio.to_thread(self._sample)
                for job in jobs:
                    if job.done():
                        job.result()
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
        self.own_failures = sum(daemon.failures for daemon in self.works.daemons())

    @asynccontextmanager
    async def _plant(self) -> AsyncIterator[None]:
        command = [sys.executable, "-m", "cli.main", "plant", "-c", str(self.plant)]
        with self.plant.with_suffix(".log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            await process.wait()

    async def _train(self, client: Client) -> None:
        while True:
            self.trainings += (await self.works.train(client, spec(seed=self.trainings))).task.state == "finished"
            await asyncio.sleep(5)

    async def _predict(self) -> None:
        url = f"http://127.0.0.1:{self.works.inference['gateway-a']}/v2/models/wear-spindles/infer"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            while True:
                start = time.perf_counter()
                async with session.post(url, json={"parameters": {"end": "spindle-1"}}) as response:
                    await response.read()
                self.predictions += 1
                self.failed += response.status != 200
                self._latencies.append(time.perf_counter() - start)
                await asyncio.sleep(PREDICTIONS_S)

    async def _reload(self) -> None:
        """The counter's source is read at another pace, and back again."""
        file = self.works.folder / "gateway-a" / "gateway.toml"
        while True:
            await asyncio.sleep(RELOAD_S)
            text = file.read_text()
            slower = "every_s = 0.2" if "every_s = 0.1" in text else "every_s = 0.1"
            file.write_text(text.replace("every_s = 0.1", slower).replace("every_s = 0.2", slower))
            self.works.gateways["gateway-a"].signal(signal.SIGHUP)
            self.reloads += 1

    def _sample(self) -> None:
        now = time.time()
        for daemon in self.works.daemons():
            self._sample_daemon(now, daemon)
        latencies, self._latencies = self._latencies, []
        if latencies:
            self._note("inference/latency_p50_ms", now, float(np.median(latencies)) * 1e3)

    def _sample_daemon(self, now: float, daemon: Daemon) -> None:
        if daemon.pid is None:
            return
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(daemon.pid)
            with process.oneshot():
                self._note(f"{daemon.name}/uss_mb", now, process.memory_full_info().uss / 2**20)
                self._note(f"{daemon.name}/rss_mb", now, process.memory_info().rss / 2**20)
                self._note(f"{daemon.name}/descriptors", now, process.num_fds())
                self._note(f"{daemon.name}/threads", now, process.num_threads())
            for worker in daemon.workers():
                self._note(f"{daemon.name}/worker_uss_mb", now, worker.memory_full_info().uss / 2**20)
                self._note(f"{daemon.name}/worker_descriptors", now, worker.num_fds())
        size = sum(path.stat().st_size for path in (daemon.folder / "data").rglob("*") if path.is_file())
        self._note(f"{daemon.name}/disk_mb", now, size / 2**20)

    def _note(self, name: str, now: float, value: float) -> None:
        self.series.setdefault(name, Series(name)).points.append((now, value))


def _plant(opcua: int, modbus: int) -> str:
    text = PLANT.format(opcua=opcua, modbus=modbus)
    for number in range(MACHINES):
        text += f'[[machine]]\nname = "lathe-{number}"\nkind = "spindle"\nserve = "opcua"\n'
    return text + '[[machine]]\nname = "boiler"\nkind = "pump"\nserve = "modbus"\n'


def _sources(opcua: int, modbus: int) -> str:
    tags = "\n".join(
        f'[[source.tag]]\nname = "lathe-{number}.{field}"\nnode = "ns=2;s=lathe-{number}.{field}"'
        for number in range(MACHINES)
        for field in OPCUA_FIELDS
    )
    return f"""
[[source]]
name = "lathes"
type = "opcua"
endpoint = "opc.tcp://127.0.0.1:{opcua}/plant"
publishing_s = 0.2
sampling_s = 0.0
{tags}
[[source]]
name = "boiler"
type = "modbus"
host = "127.0.0.1"
port = {modbus}
every_s = 0.2
[[source.tag]]
name = "pressure"
address = 8
type = "f32"
"""


if __name__ == "__main__":
    main()
