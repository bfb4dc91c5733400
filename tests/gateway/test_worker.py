"""Real worker processes on a real store: what they compute, what survives them, what they refuse."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from common.errors import FedfabError
from federation.progress import listening
from gateway.ends import EndLearner, Snapshot
from gateway.errors import GatewayError
from gateway.workers import WorkerPool
from models import parameters, scaling
from models.learner import Params
from models.metrics import metrics
from tests.gateway import wear

ENDS = ("spindle-1", "spindle-2")


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("worker") / "store.db"
    wear.fill(path, ENDS)
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(store: Path) -> AsyncIterator[WorkerPool]:
    async with WorkerPool(store, 1) as pool:
        yield pool


def end(pool: WorkerPool, folder: Path, name: str = "spindle-1", task: str = "t1") -> EndLearner:
    return EndLearner(
        name, cluster="spindles", schema=wear.SCHEMA, spec=wear.spec(), task=task,
        snapshot=Snapshot(folder / "snapshot.json"), pool=pool,
    )  # fmt: skip


async def first_params(learner: EndLearner) -> Params:
    moments = await learner.moments()
    return parameters.initial(learner.spec, [wear.SCHEMA]) | scaling.scaling(learner.spec, moments)


@pytest.mark.clause("5.3")
@pytest.mark.clause("8.6")
async def test_an_end_learns(pool: WorkerPool, tmp_path: Path) -> None:
    learner = end(pool, tmp_path)
    description = await learner.describe()
    assert description.schemas == {"spindles": wear.SCHEMA}
    assert description.samples == description.ends["spindle-1"] > 100
    params = start = await first_params(learner)
    for round_ in range(1, 6):
        update = await learner.fit(round_, params)
        assert update.samples == description.samples
        params = {**params, **update.params}
    spec = wear.spec()
    before = metrics(spec, (await learner.evaluate(start))["spindle-1"])["rmse"]
    after = metrics(spec, (await learner.evaluate(params))["spindle-1"])["rmse"]
    assert after < 0.3 * before
    assert metrics(spec, (await learner.fit(1, start)).before["spindle-1"])["rmse"] == before


@pytest.mark.clause("8.6")
async def test_a_task_sees_the_same_rows_whatever_comes_and_dies(pool: WorkerPool, store: Path, tmp_path: Path) -> None:
    learner = end(pool, tmp_path)
    description = await learner.describe()
    start = await first_params(learner)
    expected = await learner.fit(1, start)
    wear.more(store, "spindle-1", first=6, runs=3)
    (pid,) = pool.pids()
    os.kill(pid, signal.SIGKILL)
    restarted = end(pool, tmp_path)
    assert await restarted.describe() == description
    again = await restarted.fit(1, start)
    assert pool.pids() != [pid]
    assert again.train_loss == expected.train_loss
    assert parameters.digest(again.params) == parameters.digest(expected.params)
    later = await end(pool, tmp_path / "later", task="t2").describe()
    assert later.samples > description.samples


async def test_those_who_wait_see_the_others_progress(pool: WorkerPool, tmp_path: Path) -> None:
    learner = end(pool, tmp_path)
    signs = 0

    def seen() -> None:
        nonlocal signs
        signs += 1

    await pool.start()
    with listening(seen):
        await asyncio.gather(*(learner.moments() for _ in range(3)))
    assert signs == 3 + 2 + 1


async def test_a_worker_that_dies_again_is_an_error(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(GatewayError, match=r"FF-WORKER-001.*died 3 times.*exit code 1"):
        await WorkerPool(store, 1).start()


async def test_a_cancelled_call_leaves_no_answer_behind(pool: WorkerPool, tmp_path: Path) -> None:
    learner = end(pool, tmp_path)
    await learner.describe()
    start = await first_params(learner)
    call = asyncio.create_task(learner.fit(1, start))
    for _ in range(3):  # far enough for the call to be on its way
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await learner.describe()).samples > 0


async def test_what_a_worker_refuses_comes_back_as_it_was_said(pool: WorkerPool, tmp_path: Path) -> None:
    with pytest.raises(FedfabError) as caught:
        await end(pool, tmp_path, name="spindle-9").describe()
    assert caught.value.code == "FF-STORE-005"
    assert "spindle-9" in caught.value.message


async def test_a_defect_in_a_worker_is_told_and_survived(pool: WorkerPool) -> None:
    with pytest.raises(FedfabError, match=r"FF-GATEWAY-001.*KeyError"):
        await pool.call("fit", {}, home="x")
    assert (await pool.call("ready", {}, home="x")).values == {}


async def test_a_worker_that_hangs_is_replaced(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.workerwatch.LOOK_S", 0.05)
    async with WorkerPool(store, 1, hang_s=0.3) as pool:
        learner = end(pool, tmp_path)
        description = await learner.describe()
        (pid,) = pool.pids()
        os.kill(pid, signal.SIGSTOP)
        assert await learner.describe() == description
        assert pool.pids() != [pid]
        assert pool.restarts == 1


async def test_a_worker_that_has_grown_is_replaced_between_calls(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any process with torch in it is beyond a limit of 20 MB."""
    monkeypatch.setattr("gateway.workerwatch.BURST", 1000.0)
    async with WorkerPool(store, 1, memory_mb=20) as pool:
        learner = end(pool, tmp_path)
        description = await learner.describe()
        assert pool.pids() == []
        assert await learner.describe() == description
        assert pool.restarts == 2


async def test_a_worker_that_grows_far_beyond_its_limit_is_stopped_at_work(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.workerwatch.LOOK_S", 0.05)
    async with WorkerPool(store, 1, memory_mb=20) as pool:
        with pytest.raises(GatewayError, match=r"FF-WORKER-001.*far above its limit"):
            await end(pool, tmp_path).describe()


async def test_workers_log_as_the_gateway_does(store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with WorkerPool(store, 1, level="error", style="json") as pool:
        with pytest.raises(FedfabError, match="KeyError"):
            await pool.call("fit", {}, home="x")
    lines = [line for line in capfd.readouterr().err.splitlines() if "call failed" in line]
    assert lines
    assert lines[0].startswith("{")


async def test_workers_leave_with_their_pool(store: Path) -> None:
    async with WorkerPool(store, 1) as pool:
        await pool.start()
        pids = pool.pids()
        assert len(pids) == 1
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
