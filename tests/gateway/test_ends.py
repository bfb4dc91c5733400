"""Learning at the edge alone: real workers, real aggregation, models judged and put in use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import pytest_asyncio

from federation.rounds import RoundReport
from gateway.clusters import Clusters
from gateway.errors import GatewayError
from gateway.modelstore import ModelStore
from gateway.store import Store
from gateway.workers import WorkerPool
from models.dataset import build
from models.spec import RoundsSpec, TaskSpec, TrainingSpec
from tests.gateway import wear

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENDS = ("spindle-1", "spindle-2")


class Gateway:
    """What the daemon has: a folder, a model store, workers; and the reports it would show."""

    def __init__(self, folder: Path, pool: WorkerPool, store: Path) -> None:
        self.folder = folder
        self.pool = pool
        self.store = store
        self.models = ModelStore(folder / "models")
        self.reports: list[RoundReport] = []

    async def observe(self, report: RoundReport) -> None:
        self.reports.append(report)

    def clusters(self, spec: TaskSpec, task: str = "t1") -> Clusters:
        config = wear.config(self.folder, ENDS)
        return Clusters(
            config, spec, task, folder=self.folder / "checkpoints" / task, models=self.models, pool=self.pool
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[WorkerPool, Path]]:
    store = tmp_path_factory.mktemp("ends") / "store.db"
    wear.fill(store, ENDS)
    async with WorkerPool(store, 1) as pool:
        yield pool, store


@pytest.fixture
def gateway(shared: tuple[WorkerPool, Path], tmp_path: Path) -> Gateway:
    return Gateway(tmp_path, *shared)


@pytest.mark.clause("5.3")
@pytest.mark.clause("5.4")
async def test_a_cluster_learns_with_nobody_else_and_its_model_is_used(gateway: Gateway) -> None:
    spec = wear.spec()
    results = await gateway.clusters(spec).learn(gateway.observe)
    assert list(results) == ["wear-spindles"]
    assert results["wear-spindles"]["promoted"]
    assert [(r.layer, r.name, r.round, r.final) for r in gateway.reports] == [
        ("cluster", "spindles", 1, False), ("cluster", "spindles", 2, False), ("cluster", "spindles", 3, False),
        ("cluster", "spindles", 3, True),
    ]  # fmt: skip
    assert set(gateway.reports[-1].per_end) == set(ENDS)
    assert gateway.reports[-1].metrics["rmse"] < 0.5 * gateway.reports[0].metrics["rmse"]
    evidence = gateway.models.evidence("wear-spindles", 1)
    assert gateway.models.in_use("wear-spindles") is not None
    assert (evidence.task_id, evidence.round, evidence.parent) == ("t1", 3, None)
    assert evidence.data_schema == wear.SCHEMA


@pytest.mark.clause("8.10.1")
async def test_the_evidence_is_of_the_model_that_is_served(gateway: Gateway) -> None:
    """What stands in the evidence is what anybody finds who runs the file on the hold-out."""
    spec = wear.spec()
    await gateway.clusters(spec).learn(gateway.observe)
    session = onnxruntime.InferenceSession(gateway.models.model("wear-spindles", 1))
    with Store.open(gateway.store, read_only=True) as store:
        data = build(spec.data, store.features("spindle-1"), "spindle-1").validation()
    error = session.run(["prediction"], {"window": data.x})[0][:, 0] - data.y
    rmse = gateway.models.evidence("wear-spindles", 1).metrics["spindle-1"]["rmse"]
    assert rmse == pytest.approx(float(np.sqrt(np.mean(error**2))), rel=1e-4)
    assert gateway.reports[-1].per_end["spindle-1"]["rmse"] == pytest.approx(rmse, rel=1e-3)


async def test_every_end_by_itself(gateway: Gateway) -> None:
    results = await gateway.clusters(wear.spec(layer="end")).learn(gateway.observe)
    assert sorted(results) == ["wear-spindle-1", "wear-spindle-2"]
    assert all(result["promoted"] and set(result["per_end"]) == {name[5:]} for name, result in results.items())
    assert {(report.layer, report.name) for report in gateway.reports} == {("end", "spindle-1"), ("end", "spindle-2")}


@pytest.mark.clause("8.10.1")
async def test_a_worse_model_is_held_back_and_a_better_one_promoted(gateway: Gateway) -> None:
    await gateway.clusters(wear.spec()).learn(gateway.observe)
    poor = wear.spec(training=TrainingSpec(epochs=1, batch_size=512, learning_rate=1e-6), rounds=RoundsSpec(max=1))
    worse = (await gateway.clusters(poor, "t2").learn(gateway.observe))["wear-spindles"]
    assert not worse["promoted"]
    assert "held back: rmse at spindle-1 is" in worse["verdict"]
    use = gateway.models.in_use("wear-spindles")
    assert use is not None
    assert use.version == 1
    evidence = gateway.models.evidence("wear-spindles", 2)
    assert evidence.parent == 1
    assert evidence.parent_metrics == gateway.models.evidence("wear-spindles", 1).metrics

    good = wear.spec(training=TrainingSpec(epochs=6, batch_size=32, learning_rate=0.01))
    better = (await gateway.clusters(good, "t3").learn(gateway.observe))["wear-spindles"]
    assert better["verdict"] == "promoted: nowhere worse than version 1"
    use = gateway.models.in_use("wear-spindles")
    assert use is not None
    assert (use.version, use.before) == (3, (1,))


async def test_models_that_cannot_be_compared_are_a_persons_decision(gateway: Gateway) -> None:
    await gateway.clusters(wear.spec()).learn(gateway.observe)
    wide = wear.spec(kind="classification", classes=200)
    other = (await gateway.clusters(wide, "t2").learn(gateway.observe))["wear-spindles"]
    assert not other["promoted"]
    assert "cannot be compared with version 1" in other["verdict"]


@pytest.mark.clause("8.9")
async def test_an_interrupted_task_goes_on_to_the_same_model(gateway: Gateway, tmp_path: Path) -> None:
    spec = wear.spec()
    whole = Gateway(tmp_path / "whole", gateway.pool, gateway.store)
    await whole.clusters(spec).learn(whole.observe)
    reached = asyncio.Event()

    async def until_round_two(report: RoundReport) -> None:
        if report.round == 2:
            reached.set()

    task = asyncio.create_task(gateway.clusters(spec).learn(until_round_two))
    await reached.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await gateway.clusters(spec).learn(gateway.observe)
    assert gateway.reports[0].round > 1
    assert (
        gateway.models.evidence("wear-spindles", 1).params_digest
        == whole.models.evidence("wear-spindles", 1).params_digest
    )


async def test_the_same_task_again_makes_no_second_version(gateway: Gateway) -> None:
    first = await gateway.clusters(wear.spec()).learn(gateway.observe)
    assert await gateway.clusters(wear.spec()).learn(gateway.observe) == first
    assert gateway.models.versions("wear-spindles") == [1]


async def test_refusals_name_what_is_missing(gateway: Gateway, tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match=r"FF-PROGRAM-001.*\['pumps'\].*gateway-a has \['spindles'\]"):
        await gateway.clusters(wear.spec(clusters=("pumps",))).learn(gateway.observe)
    empty = tmp_path / "empty.db"
    wear.fill(empty, ENDS, runs=0)
    async with WorkerPool(empty, 1) as pool:
        with pytest.raises(GatewayError, match=r"FF-PROGRAM-002.*no end of cluster"):
            await Gateway(tmp_path, pool, empty).clusters(wear.spec()).learn(gateway.observe)


async def test_an_end_without_data_is_left_out(gateway: Gateway, tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    wear.fill(store, ["spindle-1"])
    wear.fill(store, ["spindle-2"], runs=0)
    async with WorkerPool(store, 1) as pool:
        partly = Gateway(tmp_path, pool, store)
        result = (await partly.clusters(wear.spec()).learn(partly.observe))["wear-spindles"]
    assert list(result["per_end"]) == ["spindle-1"]


async def test_ends_of_very_different_size_weigh_what_they_hold(gateway: Gateway, tmp_path: Path) -> None:
    """A hundred times the rows: a hundred times the weight, and the report says who took how long for what."""
    store = tmp_path / "store.db"
    wear.fill(store, ["spindle-1"], runs=200)
    wear.fill(store, ["spindle-2"], runs=2)
    async with WorkerPool(store, 1) as pool:
        uneven = Gateway(tmp_path, pool, store)
        results = await uneven.clusters(wear.spec(rounds=RoundsSpec(max=1))).learn(uneven.observe)
    assert set(results["wear-spindles"]["per_end"]) == set(ENDS)
    report = uneven.reports[0]
    with Store.open(store, read_only=True) as opened:
        samples = {end: int((~build(wear.spec().data, opened.features(end), end).holdout).sum()) for end in ENDS}
    assert samples["spindle-1"] > 90 * samples["spindle-2"]
    assert report.samples == sum(samples.values())
    large, small = report.timing["spindle-1"], report.timing["spindle-2"]
    assert large["compute"] > 10 * small["compute"]
    assert large["compute"] > large["wait"]
    assert small["wait"] > small["compute"], "it waits for its turn in the one worker"
    assert report.slowest.startswith(("spindle-1", "spindle-2"))
