"""The life of a task, from an operator's call to a model in use at the plants: real coordinator, real members, real TLS."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from models.spec import RoundsSpec, TaskSpec
from tests.coordinator.world import Cloud, Gate, followed, rounds
from trust.keys import SuiteName

SPEC = TaskSpec(name="wear", rounds=RoundsSpec(max=4))
AB = ("gateway-a", "gateway-b")


@pytest.fixture(autouse=True)
def patience() -> None:
    """No test here waits longer than this for something that should come by itself."""


@pytest.mark.clause("8.2", "8.9")
async def test_a_task_from_submission_to_a_model_in_use(ca: Path, tmp_path: Path, suite_name: SuiteName) -> None:
    cloud = Cloud(ca, tmp_path, suite_name)
    async with asyncio.timeout(60), cloud.running() as client, cloud.plants(*AB) as plants:
        task = await client.submit(SPEC)
        assert (task.members, task.submitted_by) == (AB, "ann")
        events = await followed(client, task)
        states = [event.body["state"] for event in events if event.kind == "state"]
        assert states == ["submitted", "running", "finished"]
        assert rounds(events) == [1, 2, 3, 4]
        (model,) = await client.models("wear")
        assert (model.version, model.state, model.task, model.members) == (1, "promoted", task.id, AB)
        assert set(model.participants) == set(AB)
        assert all(metrics["rmse"] for metrics in model.participants.values())
        for plant in plants:
            promoted = await plant.told("model.promote")
            assert promoted.meta == {"task": task.id, "model": "wear", "version": 1}
        assert len(await client.params("wear", 1)) == model.size
