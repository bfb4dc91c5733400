"""The model registry: lineage, the rule of promotion, roll back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from coordinator.db import connect, migrate
from coordinator.errors import ConflictError, CoordinatorError, NotFoundError
from coordinator.registry import Registry
from coordinator.resources import Model
from coordinator.tasks import Tasks
from federation.database import Database
from models.learner import Params
from models.parameters import from_bytes
from models.spec import TaskSpec


class Shop:
    """A registry, and the tasks its models come from."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.folder = folder
        self.tasks = Tasks(database)
        self.registry = Registry(database, folder)

    async def add(self, rmse: dict[str, float], *objections: str, value: float = 1.0) -> Model:
        """A further version of the model "wear", with this RMSE at each end."""
        task = await self.tasks.submit(TaskSpec(name="wear"), ["gateway-a"], "ann")
        participants = {end: {"rmse": value} for end, value in rmse.items()}
        return await self.registry.add(
            task, _params(value), metrics={"rmse": 1.0}, participants=participants, objections=objections
        )


def _params(value: float) -> Params:
    return {"trunk/0.weight": np.full((2, 3), value, np.float32)}


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    url = f"sqlite:///{tmp_path / 'c.db'}"
    migrate(url)
    database = Database(connect(url))
    yield Shop(database, tmp_path / "models")
    await database.close()
    database.engine.dispose()


async def test_the_first_model_is_promoted_and_its_parameters_come_back(shop: Shop) -> None:
    model = await shop.add({"a": 3.0, "b": 5.0}, value=0.5)
    assert (model.version, model.parent, model.state, model.participants["b"]) == (1, None, "promoted", {"rmse": 5.0})
    stored = from_bytes(await shop.registry.params("wear", 1))
    assert np.array_equal(stored["trunk/0.weight"], _params(0.5)["trunk/0.weight"])


@pytest.mark.clause("8.10.1")
async def test_a_model_that_is_worse_at_one_participant_is_held_with_the_reason(shop: Shop) -> None:
    await shop.add({"a": 3.0, "b": 5.0})
    held = await shop.add({"a": 1.0, "b": 5.1})
    assert (held.version, held.parent, held.state) == (2, 1, "candidate")
    assert held.reason == "held back: rmse at b is 5.1, was 5"
    in_use = await shop.registry.in_use("wear")
    assert in_use is not None
    assert in_use.version == 1
    better = await shop.add({"a": 1.0, "b": 5.0, "c": 9.0})
    assert (better.version, better.parent, better.state) == (3, 1, "promoted")
    assert (await shop.registry.get("wear", 1)).state == "retired"


async def test_a_member_can_object(shop: Shop) -> None:
    model = await shop.add({"a": 3.0}, "gateway-a: held back: rmse at a is 3, was 2")
    assert (model.state, model.reason) == ("candidate", "held back: gateway-a: held back: rmse at a is 3, was 2")
    assert await shop.registry.in_use("wear") is None


async def test_adding_again_after_a_crash_changes_nothing(shop: Shop) -> None:
    task = await shop.tasks.submit(TaskSpec(name="wear"), ["gateway-a"], "ann")
    first = await shop.registry.add(task, _params(1), metrics={}, participants={}, objections=())
    assert await shop.registry.add(task, _params(1), metrics={}, participants={}, objections=()) == first
    assert len(await shop.registry.find("wear")) == 1


async def test_promote_and_roll_back_walk_the_history(shop: Shop) -> None:
    for _ in range(3):
        await shop.add({"a": 1.0})
    held = await shop.add({"a": 2.0})
    promoted = await shop.registry.promote("wear", held.version, "ben")
    assert (promoted.state, promoted.reason) == ("promoted", "promoted by ben")
    walked = [(await shop.registry.roll_back("wear", "ann")).version for _ in range(3)]
    assert walked == [3, 2, 1]
    with pytest.raises(ConflictError, match='model "wear": no version was in use before the present one'):
        await shop.registry.roll_back("wear", "ann")
    assert {model.version: model.state for model in await shop.registry.find("wear")} == {
        1: "promoted",
        2: "retired",
        3: "retired",
        4: "retired",
    }


async def test_promoting_what_is_in_use_leaves_the_history_alone(shop: Shop) -> None:
    await shop.add({"a": 1.0})
    await shop.add({"a": 1.0})
    await shop.registry.promote("wear", 2, "ann")
    assert (await shop.registry.roll_back("wear", "ann")).version == 1


async def test_unknown_versions_name_the_known_ones(shop: Shop) -> None:
    await shop.add({"a": 1.0})
    with pytest.raises(NotFoundError, match='model "wear" has no version 7; its versions are 1'):
        await shop.registry.promote("wear", 7, "ann")
    with pytest.raises(NotFoundError, match='model "tear" has no version 1; there is no model of that name'):
        await shop.registry.get("tear", 1)


async def test_damaged_parameters_are_never_handed_out(shop: Shop) -> None:
    await shop.add({"a": 1.0})
    (file,) = shop.folder.rglob("*.safetensors")
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(CoordinatorError, match="FF-COORD-032"):
        await shop.registry.params("wear", 1)
