"""Sources under supervision: one failing device never stops another, nothing is lost, and the log stays readable."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from connectors.contract import Batch, Connector, Quality, Sample, SourceConfig
from connectors.errors import ConnectorConfigError, ConnectorError
from gateway.blocks import FeatureBlock
from gateway.config import Config
from gateway.errors import StoreError
from gateway.probe import probe
from gateway.runtime import Backoff, Runtime
from gateway.store import Store
from tests.gateway.plants import SECOND, config, snapshot

DOWN = ConnectorError("FF-TEST-001", "no answer from m1", hint="switch it on")  # a code of this test only


class Script:
    """A connector that plays steps: a batch is read, an exception raised; at the end it waits for ever."""

    def __init__(self, steps: Iterator[Batch | Exception], done: asyncio.Event) -> None:
        self.steps = steps
        self.done = done
        self.cursors: list[str | None] = []
        self.stops = 0

    async def start(self, cursor: str | None) -> None:
        self.cursors.append(cursor)

    async def read(self) -> Batch:
        for step in self.steps:
            if isinstance(step, Exception):
                raise step
            return step
        self.done.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def stop(self) -> None:
        self.stops += 1

    async def probe(self) -> Sequence[Sample]:
        return (await self.read()).samples


class Plant:
    """Scripts for the sources of a configuration, and a clock that only moves when the runtime sleeps."""

    def __init__(self, **steps: Sequence[Batch | Exception]) -> None:
        self.done = {name: asyncio.Event() for name in steps}
        self.scripts = {name: Script(iter(play), self.done[name]) for name, play in steps.items()}
        self.slept: list[float] = []

    def create(self, source: SourceConfig) -> Connector:
        return self.scripts[source.name]

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    async def play(self, settings: Config, store: Store) -> Runtime:
        """Run until every script has come to its end."""
        runtime = Runtime(settings, store, create=self.create, sleep=self.sleep)
        task = asyncio.create_task(runtime.run())
        async with asyncio.timeout(20):
            await asyncio.gather(*(event.wait() for event in self.done.values()))
        await stopped(task)
        return runtime


async def stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def batch(second: int, cursor: str | None = None, acknowledged: list[int] | None = None) -> Batch:
    samples = snapshot(second, vibration=float(second), temperature=32.0, cycle=second, run=1)

    async def acknowledge() -> None:
        if acknowledged is not None:
            acknowledged.append(second)

    return Batch(samples, cursor, acknowledge)


async def test_samples_are_stored_then_acknowledged_then_prepared(tmp_path: Path) -> None:
    made = config(tmp_path)
    acknowledged: list[int] = []
    with Store.open(made.gateway.store) as store:
        plant = Plant(m1=[batch(i, str(i), acknowledged) for i in range(1, 6)])
        runtime = await plant.play(made, store)
        assert acknowledged == [1, 2, 3, 4, 5]
        assert store.cursor("m1") == "5"
        assert store.features("m1").x[:, 0].tolist() == [1, 2, 3, 4]
        status = runtime.sources["m1"]
        assert (status.state, status.readings, status.bad, status.failures) == ("stopped", 20, 0, 0)
        assert status.last_data is not None
        assert plant.scripts["m1"].stops == 1


async def test_a_failing_source_is_tried_again_behind_its_cursor_and_the_log_says_so_once(tmp_path: Path) -> None:
    made = config(tmp_path)
    plant = Plant(m1=[batch(1, "one"), *[DOWN] * 6, batch(2, "two"), batch(3)])
    with Store.open(made.gateway.store) as store, capture_logs() as logs:
        runtime = await plant.play(made, store)
        assert [sample.value for sample in store.read_raw("m1", tags={"cycle"})] == [1, 2, 3]
    assert plant.scripts["m1"].cursors == [None] + ["one"] * 6
    told = [(entry["event"], entry.get("code"), entry.get("attempts")) for entry in logs]
    assert told == [("source failed", "FF-TEST-001", None), ("source recovered", None, 6)]
    status = runtime.sources["m1"]
    assert (status.reconnects, status.failures) == (1, 0)
    assert status.last_error is not None
    assert "no answer from m1" in status.last_error
    assert len(plant.slept) == 6
    assert all(0.5 * 2**i <= delay <= 2**i for i, delay in enumerate(plant.slept))


def test_waiting_grows_to_a_bound_and_is_never_the_same() -> None:
    chance = random.Random(1)
    delays = [Backoff(1, 60).delay_s(failures, chance) for failures in (*range(1, 12), 5000)]
    assert all(30 <= delay <= 60 for delay in delays[7:])
    assert len(set(delays)) == len(delays)


@pytest.mark.parametrize("failure", [DOWN, ZeroDivisionError("a bug in a driver")])
async def test_one_dead_device_never_blocks_the_others(tmp_path: Path, failure: Exception) -> None:
    made = config(tmp_path, ends=("m1", "m2"))

    def always() -> Iterator[Batch | Exception]:
        while True:
            yield failure

    plant = Plant(m2=[batch(i) for i in range(1, 4)])
    plant.scripts["m1"] = Script(always(), asyncio.Event())
    with Store.open(made.gateway.store) as store:
        runtime = await plant.play(made, store)
        assert len(store.features("m2").time) == 2
    assert runtime.sources["m1"].readings == 0
    assert runtime.sources["m1"].failures > 0


async def test_a_source_whose_configuration_cannot_work_is_not_tried_again(tmp_path: Path) -> None:
    made = config(tmp_path, ends=("m1", "m2"))
    refused = ConnectorConfigError("FF-TEST-002", "no such certificate")
    plant = Plant(m2=[batch(1)])
    plant.scripts["m1"] = Script(iter([refused]), asyncio.Event())
    with Store.open(made.gateway.store) as store:
        runtime = await plant.play(made, store)
    assert runtime.sources["m1"].state == "refused"
    assert plant.slept == []


async def test_bad_readings_are_counted_and_stay_in_the_raw_layer(tmp_path: Path) -> None:
    made = config(tmp_path)
    bad = Batch(snapshot(2, Quality.BAD, vibration=None))
    with Store.open(made.gateway.store) as store:
        runtime = await Plant(m1=[batch(1), bad, batch(3)]).play(made, store)
        assert [sample.quality for sample in store.read_raw("m1", tags={"vibration"})] == [0, 2, 0]
    assert runtime.sources["m1"].bad == 1
    status = runtime.status()
    assert status["rejected"]["m1"]["vibration"]["bad"] == 1  # type: ignore[index]


async def test_a_store_that_cannot_be_written_for_a_while_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config(tmp_path)
    with Store.open(made.gateway.store) as store:
        keep = store.append_all_features
        failed: list[int] = []

        def full_once(blocks: Mapping[str, FeatureBlock], upto: int) -> None:
            if not failed:
                failed.append(1)
                raise StoreError("FF-STORE-006", "no space left")
            keep(blocks, upto)

        monkeypatch.setattr(store, "append_all_features", full_once)
        with capture_logs() as logs:
            await Plant(m1=[batch(i) for i in range(1, 6)]).play(made, store)
        assert failed
        assert [entry["event"] for entry in logs if entry["log_level"] == "error"] in (
            ["features cannot be stored"],
            ["features not brought up to date"],  # when it happened while stopping
        )
        await Plant(m1=[]).play(made, store)
        assert store.features("m1").x[:, 0].tolist() == [1, 2, 3, 4]


async def test_a_disabled_source_is_left_alone(tmp_path: Path) -> None:
    made = config(tmp_path, ends=("m1", "m2"))
    off = made.sources[0].model_copy(update={"enabled": False})
    made = made.model_copy(update={"sources": (off, made.sources[1])})
    plant = Plant(m2=[batch(1)])
    with Store.open(made.gateway.store) as store:
        runtime = await plant.play(made, store)
    assert list(runtime.sources) == ["m2"]


@pytest.mark.clause("9.1.2")
async def test_a_real_database_is_read_to_its_end_and_further_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/plant.db"
    engine = sa.create_engine(url)
    insert = sa.text("INSERT INTO log (at, vibration, cycle, run) VALUES (:at, :v, :c, 1)")
    with engine.begin() as plant:
        plant.execute(
            sa.text("CREATE TABLE log (id INTEGER PRIMARY KEY, at REAL, vibration REAL, cycle INTEGER, run INTEGER)")
        )
        plant.execute(insert, [{"at": i, "v": i / 2, "c": i} for i in range(1, 51)])
    made = load_sql(tmp_path, url)

    async def read_until(samples: int, store: Store) -> list[object]:
        """Run until so many samples are in the store."""
        loop, enough, append = asyncio.get_running_loop(), asyncio.Event(), store.append_raw_many

        def watched(batches: Any) -> list[int]:
            numbers = append(batches)
            if len(store.read_raw("m1")) >= samples:
                loop.call_soon_threadsafe(enough.set)
            return numbers

        monkeypatch.setattr(store, "append_raw_many", watched)
        task = asyncio.create_task(Runtime(made, store).run())
        async with asyncio.timeout(20):
            await enough.wait()
        await stopped(task)
        return list(store.features("m1").x[:, 0].tolist())

    with Store.open(made.gateway.store) as store:
        assert await read_until(150, store) == [i / 2 for i in range(1, 50)]
    with engine.begin() as plant:
        plant.execute(insert, [{"at": i, "v": i / 2, "c": i} for i in range(51, 61)])
    with Store.open(made.gateway.store) as store:
        assert await read_until(180, store) == [i / 2 for i in range(1, 60)]
        assert len(store.read_raw("m1")) == 180
    engine.dispose()


def load_sql(folder: Path, url: str) -> Config:
    """A configuration file as a plant would have it, with one table as its source."""
    from gateway.configfile import load

    tags = "".join(f'[[source.tag]]\nname = "{name}"\ncolumn = "{name}"\n' for name in ("vibration", "cycle", "run"))
    fields = "".join(f'[[cluster.field]]\nname = "{name}"\nrole = "aux"\n' for name in ("cycle", "run"))
    (folder / "gateway.toml").write_text(f"""
[gateway]
name = "g"
[[source]]
name = "m1"
type = "sql"
url = "{url}"
table = "log"
cursor = "id"
time = "at"
every_s = 0.01
{tags}
[[cluster]]
name = "machines"
rows = {{ on_change = "cycle", wait_s = 0 }}
group = "run"
label = {{ remaining = "cycle" }}
[[cluster.field]]
name = "vibration"
{fields}
[[end]]
name = "m1"
cluster = "machines"
tags = {{ vibration = "m1/vibration", cycle = "m1/cycle", run = "m1/run" }}
""")
    return load(folder / "gateway.toml")


async def test_probing_asks_all_at_once_and_a_dead_source_costs_nothing_but_its_time_out(tmp_path: Path) -> None:
    made = config(tmp_path, ends=("m1", "m2", "m3", "m4"))
    plant = Plant(m1=[], m2=[batch(1)], m3=[DOWN], m4=[ZeroDivisionError("oops")])
    readings = await probe(made.sources, 0.05, create=plant.create)
    assert [reading.source.name for reading in readings] == ["m1", "m2", "m3", "m4"]
    assert readings[0].error == "no answer within 0.05 s"
    assert [sample.value for sample in readings[1].samples] == [1.0, 32.0, 1, 1]
    assert readings[1].samples[0].source_time == 1 * SECOND
    assert "no answer from m1" in (readings[2].error or "")
    assert "oops" in (readings[3].error or "")


@pytest.mark.clause("8.4")
async def test_another_configuration_touches_only_the_sources_that_changed(tmp_path: Path) -> None:
    made = config(tmp_path, ends=("m1", "m2"))
    plant = Plant(m1=[batch(i) for i in range(1, 4)], m2=[batch(i) for i in range(1, 4)])
    with Store.open(made.gateway.store) as store:
        runtime = Runtime(made, store, create=plant.create, sleep=plant.sleep)
        running = asyncio.create_task(runtime.run())
        async with asyncio.timeout(20):
            await asyncio.gather(*(event.wait() for event in plant.done.values()))
            untouched, status = plant.scripts["m1"], runtime.sources["m1"]
            off = made.sources[1].model_copy(update={"enabled": False})
            await runtime.apply(made.model_copy(update={"sources": (made.sources[0], off)}))
            assert plant.scripts["m2"].stops == 1
            assert list(runtime.sources) == ["m1"]

            plant.scripts["m2"] = Script(iter([batch(9)]), asyncio.Event())
            await runtime.apply(made)
            await plant.scripts["m2"].done.wait()
        assert (untouched.stops, len(untouched.cursors)) == (0, 1)
        assert runtime.sources["m1"] is status
        await stopped(running)
        assert [sample.value for sample in store.read_raw("m2", tags={"cycle"})] == [1, 2, 3, 9]


@pytest.mark.clause("8.4")
async def test_features_are_made_again_where_their_recipe_changed_and_no_source_notices(tmp_path: Path) -> None:
    made = config(tmp_path)
    plant = Plant(m1=[batch(i) for i in range(1, 8)])
    with Store.open(made.gateway.store) as store:
        runtime = Runtime(made, store, create=plant.create, sleep=plant.sleep)
        running = asyncio.create_task(runtime.run())
        async with asyncio.timeout(20):
            await plant.done["m1"].wait()
            cluster = made.clusters[0]
            bounded = cluster.fields[0].model_copy(update={"max": 4.0, "missing": "drop"})
            changed = cluster.model_copy(update={"fields": (bounded, *cluster.fields[1:])})
            await runtime.apply(made.model_copy(update={"clusters": (changed,)}))
        assert plant.scripts["m1"].stops == 0
        await stopped(running)
        assert store.features("m1").x[:, 0].tolist()[:4] == [1, 2, 3, 4]
        assert all(map(math.isnan, store.features("m1").x[4:, 0]))


async def test_a_full_store_makes_a_source_wait_and_costs_it_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config(tmp_path)
    acknowledged: list[int] = []
    with Store.open(made.gateway.store) as store:
        keep, left = store.append_raw_many, [5]

        def full(batches: Sequence[Any]) -> list[int]:
            left[0] -= 1
            if left[0] >= 0:
                raise StoreError("FF-STORE-006", "no space left")
            return keep(batches)

        monkeypatch.setattr(store, "append_raw_many", full)
        plant = Plant(m1=[batch(i, str(i), acknowledged) for i in range(1, 4)])
        with capture_logs() as logs:
            runtime = await plant.play(made, store)
        assert [sample.value for sample in store.read_raw("m1", tags={"cycle"})] == [1, 2, 3]
    assert (acknowledged, len(plant.scripts["m1"].cursors)) == ([1, 2, 3], 1), "never reconnected"
    assert runtime.store_trouble is None
    told = [entry["event"] for entry in logs if entry["event"].startswith("store can")]
    assert told == ["store cannot be written, sources wait", "store can be written again"]
