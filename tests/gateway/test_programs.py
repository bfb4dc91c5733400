"""What a coordinator can have a gateway do, over the real wire: TLS, sealed messages, worker processes, models in use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from federation.aggregate import Outcome, aggregate
from federation.checkpoint import Checkpoint
from federation.context import Message
from federation.errors import FederationError
from federation.node import Node
from federation.remote import RemoteLearner
from gateway.modelstore import ModelStore
from gateway.programs import Programs
from gateway.workers import WorkerPool
from models.spec import RoundsSpec, TaskSpec, TrainingSpec
from tests.federation.conftest import World, aggregating
from tests.gateway import wear
from trust import pki

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENDS = {"gateway-a": ("spindle-1", "spindle-2"), "gateway-b": ("spindle-3",)}


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a CA that has issued a coordinator and two gateways."""
    folder = tmp_path_factory.mktemp("programs-ca")
    pki.init(folder, pki.SUITES, "Test Works")
    pki.issue(folder, pki.Request("cloud", "coordinator", "Test Works", ["127.0.0.1"]))
    for name in ENDS:
        pki.issue(folder, pki.Request(name, "gateway", "Test Works"))
    return folder


class Plant:
    """One gateway without its daemon: store, models, workers and programs, in a folder that outlives a crash."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.folder = folder / f"{name}-plant"
        self.store = self.folder / "store.db"
        self.models = ModelStore(self.folder / "models")
        wear.fill(self.store, ENDS[name])

    @asynccontextmanager
    async def running(self, world: World) -> AsyncIterator[Programs]:
        config = wear.config(self.folder, ENDS[self.name])
        async with (
            WorkerPool(self.store, 1) as pool,
            world.member(self.name, "gm") as node,
            asyncio.TaskGroup() as group,
        ):
            programs = Programs(config, folder=self.folder / "checkpoints", models=self.models, pool=pool)
            running = group.create_task(programs.run(node, world.identity(self.name, "gm")[1]))
            await node.connected.wait()
            yield programs
            running.cancel()


class Cloud:
    """A coordinator reduced to what these tests need."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node = node
        self.folder = folder
        self.heard: asyncio.Queue[Message] = asyncio.Queue()

    async def listen(self) -> None:
        async for message in self.node.unclaimed():
            await message.done()
            self.heard.put_nowait(message)

    async def start(self, spec: TaskSpec, task: str, members: Sequence[str]) -> None:
        for member in members:
            await self.node.send(member, "task.start", {"task": task, "spec": spec.model_dump(mode="json")}, task=task)

    def forget(self) -> None:
        """What was said until now is not waited for any more."""
        while not self.heard.empty():
            self.heard.get_nowait()

    async def hear(self, kind: str) -> dict[str, Any]:
        while True:
            message = await self.heard.get()
            if message.header.kind == kind:
                return message.meta

    async def learn(self, spec: TaskSpec, task: str, members: Sequence[str]) -> Outcome:
        context = self.node.context(task)
        learners = [RemoteLearner(context, member) for member in members]
        return await aggregate(spec, learners, name="cloud", layer="cloud", checkpoint=Checkpoint(self.folder / task))


@asynccontextmanager
async def federation(ca: Path, folder: Path) -> AsyncIterator[tuple[World, Cloud]]:
    async with aggregating(ca, folder) as world, world.aggregator() as node, asyncio.TaskGroup() as group:
        cloud = Cloud(node, folder / "cloud")
        listening = group.create_task(cloud.listen())
        yield world, cloud
        listening.cancel()


def spec(**changes: object) -> TaskSpec:
    return wear.spec(**{"layer": "cloud", "rounds": RoundsSpec(max=2, cluster=2, deadline_s=30), **changes})


class Town(NamedTuple):
    """Everything running: the wire, the coordinator, two gateways."""

    world: World
    cloud: Cloud
    a: Plant
    b: Plant
    at_a: Programs
    at_b: Programs

    async def a_says(self, to: str, kind: str, meta: dict[str, Any]) -> None:
        """Gateway A oversteps: what its certificate does not let it say."""
        assert self.at_a.node is not None
        await self.at_a.node.relay.refresh()
        await self.at_a.node.send(to, kind, meta, task="evil")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(ca: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    folder = tmp_path_factory.mktemp("town")
    a, b = Plant(folder, "gateway-a"), Plant(folder, "gateway-b")
    async with federation(ca, folder) as (world, cloud), a.running(world) as at_a, b.running(world) as at_b:
        yield Town(world, cloud, a, b, at_a, at_b)


async def until(programs: Programs, task: str, state: str) -> None:
    async with asyncio.timeout(30):
        while task not in programs.records or programs.records[task].state != state:  # noqa: ASYNC110 - a file tells it
            await asyncio.sleep(0.02)


@pytest.mark.clause("5.4")
@pytest.mark.clause("8.10.2")
async def test_both_layers_end_in_models_that_are_used_at_every_plant(town: Town) -> None:
    await town.cloud.start(spec(), "both", list(ENDS))
    outcome = await town.cloud.learn(spec(), "both", list(ENDS))
    await until(town.at_a, "both", "finished")
    await until(town.at_b, "both", "finished")
    report = await town.cloud.hear("task.report")
    assert set(outcome.per_end) == {"gateway-a/spindle-1", "gateway-a/spindle-2", "gateway-b/spindle-3"}
    assert (report["layer"], report["name"]) == ("cluster", "spindles")
    for name, plant in (("gateway-a", town.a), ("gateway-b", town.b)):
        told = outcome.finished[name]["models"]["wear-spindles"]
        assert told["promoted"]
        evidence = plant.models.evidence("wear-spindles", told["version"])
        assert evidence.task_id == "both"
        assert evidence.round == 4, "two rounds of the cloud, two rounds of the cluster in each"
        for end, metrics in evidence.metrics.items():
            assert metrics["rmse"] == pytest.approx(outcome.per_end[f"{name}/{end}"]["rmse"], rel=1e-3)
    assert town.at_a.status()[0]["state"] == "finished"


async def test_the_cluster_layer_reports_to_the_coordinator(town: Town) -> None:
    town.cloud.forget()
    await town.cloud.start(spec(name="mine", layer="cluster"), "cluster", ["gateway-a"])
    rounds = [(await town.cloud.hear("task.report"))["round"] for _ in range(3)]
    result = await town.cloud.hear("task.result")
    assert rounds == [1, 2, 2]
    assert result["models"]["mine-spindles"]["promoted"]
    assert town.a.models.in_use("mine-spindles") is not None


@pytest.mark.clause("9.4.1.1f")
async def test_what_a_task_needed_on_its_way_is_gone_when_it_has_ended(town: Town) -> None:
    await town.cloud.start(spec(name="brief", layer="cluster"), "brief", ["gateway-a"])
    folder = town.a.folder / "checkpoints" / "brief"
    town.cloud.forget()
    await town.cloud.hear("task.report")
    checkpoint = folder / "spindles" / "checkpoint"
    async with asyncio.timeout(30):
        while not checkpoint.exists():  # noqa: ASYNC110 - a file tells it
            await asyncio.sleep(0.005)
        with checkpoint.open("rb") as held:
            while [entry.name for entry in folder.iterdir()] != ["task.json"]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            assert not any(held.read()), "the last checkpoint was overwritten before its name was removed"
    await town.cloud.hear("task.result")
    assert town.at_a.records["brief"].state == "finished"


async def test_what_cannot_be_done_is_refused_with_the_reason(town: Town) -> None:
    await town.cloud.start(spec(layer="cluster", clusters=["pumps"]), "r1", ["gateway-b"])
    error = (await town.cloud.hear("task.result"))["error"]
    assert error["code"] == "FF-PROGRAM-001"
    assert "['pumps']" in error["message"]
    await until(town.at_b, "r1", "failed")

    await town.cloud.start(spec(clusters=["pumps"]), "r2", ["gateway-b"])
    with pytest.raises(FederationError, match=r"gateway-b: FF-PROGRAM-001"):
        await town.cloud.learn(spec(clusters=["pumps"]), "r2", ["gateway-b"])
    await town.cloud.node.send("gateway-b", "task.cancel", {"task": "r2"}, task="r2")
    await until(town.at_b, "r2", "cancelled")


async def test_nobody_but_the_coordinator_is_given_an_update(town: Town) -> None:
    await town.cloud.start(spec(name="ours"), "ours", ["gateway-b"])
    await until(town.at_b, "ours", "running")
    assert town.at_a.node is not None
    await town.at_a.node.relay.refresh()
    prying = asyncio.create_task(RemoteLearner(town.at_a.node.context("ours"), "gateway-b").describe())
    await town.cloud.learn(spec(name="ours"), "ours", ["gateway-b"])
    await until(town.at_b, "ours", "finished")
    assert not prying.done()
    prying.cancel()
    await asyncio.gather(prying, return_exceptions=True)


async def test_promotion_by_the_coordinator_reaches_what_was_held_back(town: Town) -> None:
    poor = {"training": TrainingSpec(epochs=1, batch_size=512, learning_rate=1e-6), "rounds": RoundsSpec(max=1)}
    await town.cloud.start(spec(name="p", layer="cluster"), "good", ["gateway-b"])
    assert (await town.cloud.hear("task.result"))["models"]["p-spindles"]["promoted"]
    await town.cloud.start(spec(name="p", layer="cluster", **poor), "poor", ["gateway-b"])
    assert not (await town.cloud.hear("task.result"))["models"]["p-spindles"]["promoted"]
    meta = {"model": "p", "version": 7, "task": "poor"}
    await town.cloud.node.send("gateway-b", "model.promote", meta, task="poor")
    await town.cloud.start(spec(name="q", clusters=["pumps"], layer="cluster"), "after", ["gateway-b"])
    await town.cloud.hear("task.result")
    use = town.b.models.in_use("p-spindles")
    assert use is not None
    assert (use.version, use.why) == (2, "promoted by cloud")


async def test_only_a_coordinator_may_start_a_task_and_only_under_a_harmless_name(town: Town) -> None:
    evil = spec(name="evil").model_dump(mode="json")
    town.cloud.forget()
    await town.a_says("gateway-b", "task.start", {"task": "evil", "spec": evil})
    await town.a_says("cloud", "task.report", {})
    await town.cloud.hear("task.report")  # what was said before it has arrived, too
    await town.cloud.node.send("gateway-b", "task.start", {"task": "../../evil", "spec": evil}, task="x")
    await town.cloud.start(spec(name="q", clusters=["pumps"], layer="cluster"), "harmless", ["gateway-b"])
    await town.cloud.hear("task.result")
    assert "harmless" in town.at_b.records
    assert not [task for task in town.at_b.records if "evil" in task]


async def test_a_task_that_is_over_elsewhere_is_over_here(town: Town) -> None:
    """A gateway that was away at the end, or died just behind its last answer, does not wait for rounds for ever."""
    await town.cloud.start(spec(name="left"), "left", ["gateway-b"])
    await until(town.at_b, "left", "running")
    await town.cloud.node.send("gateway-b", "task.over", {"task": "left"}, task="left")
    await until(town.at_b, "left", "finished")
    assert town.at_b.records["left"].reason == "over at cloud"


async def test_a_task_that_failed_keeps_its_data_until_it_is_resumed(town: Town) -> None:
    """The rows that a task learns from are fixed by its first start, not by the last one."""
    await town.cloud.start(spec(name="torn"), "torn", ["gateway-b"])
    before = await RemoteLearner(town.cloud.node.context("torn"), "gateway-b").describe()
    await town.cloud.node.send("gateway-b", "task.cancel", {"task": "torn", "resumable": True}, task="torn")
    await until(town.at_b, "torn", "failed")
    wear.more(town.b.store, "spindle-3", first=20, runs=2)
    await town.cloud.start(spec(name="torn"), "torn", ["gateway-b"])
    assert await RemoteLearner(town.cloud.node.context("torn"), "gateway-b").describe() == before
    await town.cloud.node.send("gateway-b", "task.cancel", {"task": "torn"}, task="torn")
    await until(town.at_b, "torn", "cancelled")


async def test_old_tasks_are_forgotten(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.programs.KEPT", 1)
    for task in ("old-1", "old-2", "old-3"):
        await town.cloud.start(spec(name="q", clusters=["pumps"], layer="cluster"), task, ["gateway-b"])
        await until(town.at_b, task, "failed")
    assert [task for task in town.at_b.records if task.startswith("old")] == ["old-2", "old-3"]
    assert not (town.b.folder / "checkpoints" / "old-1").exists()


async def test_a_restarted_gateway_goes_on_with_its_task(ca: Path, tmp_path: Path) -> None:
    plant = Plant(tmp_path, "gateway-b")
    async with federation(ca, tmp_path) as (world, cloud):
        async with plant.running(world) as programs:
            await cloud.start(spec(), "t1", ["gateway-b"])
            await until(programs, "t1", "running")
        wear.more(plant.store, "spindle-3", first=6, runs=2)
        async with plant.running(world) as programs:
            outcome = await cloud.learn(spec(), "t1", ["gateway-b"])
            await until(programs, "t1", "finished")
    assert outcome.finished["gateway-b"]["models"]["wear-spindles"]["promoted"]
