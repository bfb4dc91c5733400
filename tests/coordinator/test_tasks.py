"""Tasks in the database: states, events, waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.db import connect, migrate
from coordinator.errors import ConflictError, NotFoundError
from coordinator.tasks import Tasks
from federation.database import Database
from models.spec import TaskSpec

SPEC = TaskSpec(name="wear")


@pytest.fixture
async def tasks(tmp_path: Path) -> AsyncIterator[Tasks]:
    url = f"sqlite:///{tmp_path / 'c.db'}"
    migrate(url)
    database = Database(connect(url))
    yield Tasks(database)
    await database.close()
    database.engine.dispose()


async def test_life_of_a_task(tasks: Tasks) -> None:
    task = await tasks.submit(SPEC, ["gateway-a"], "ann")
    assert (task.state, task.members, task.submitted_by, task.spec) == ("submitted", ("gateway-a",), "ann", SPEC)
    running = await tasks.move(task.id, "running")
    assert running.started is not None
    assert running.ended is None
    await tasks.record(task.id, "round", {"round": 1, "loss": float("nan")})
    done = await tasks.move(task.id, "finished", "30 rounds")
    assert (done.state, done.reason, done.ended is not None) == ("finished", "30 rounds", True)
    events = await tasks.events(task.id)
    assert [(event.kind, event.body.get("state")) for event in events] == [
        ("state", "submitted"),
        ("state", "running"),
        ("round", None),
        ("state", "finished"),
    ]
    assert events[2].body == {"round": 1, "loss": None}, "a number JSON cannot hold is null"
    assert await tasks.events(task.id, after=events[2].number) == events[3:]


@pytest.mark.parametrize("end", ["finished", "failed", "cancelled"])
async def test_an_ended_task_stays_ended(tasks: Tasks, end: str) -> None:
    task = await tasks.submit(SPEC, [], "ann")
    await tasks.move(task.id, "running")
    await tasks.move(task.id, end)  # type: ignore[arg-type]
    with pytest.raises(ConflictError, match=f"is {end}, so it cannot become cancelled; expected submitted or running"):
        await tasks.move(task.id, "cancelled")
    assert (await tasks.get(task.id)).state == end
    assert len(await tasks.events(task.id)) == 3, "a move that did not happen leaves no event"


async def test_a_failed_task_may_be_taken_up_again(tasks: Tasks) -> None:
    task = await tasks.submit(SPEC, [], "ann")
    await tasks.move(task.id, "failed", "no quorum")
    again = await tasks.move(task.id, "submitted", "resumed")
    assert (again.state, again.ended) == ("submitted", None)


async def test_unknown_task(tasks: Tasks) -> None:
    with pytest.raises(NotFoundError, match='no task "nope"'):
        await tasks.events("nope", wait_s=10)


async def test_waiting_is_woken_by_the_event(tasks: Tasks) -> None:
    task = await tasks.submit(SPEC, [], "ann")
    seen = (await tasks.events(task.id))[-1].number
    waiting = asyncio.create_task(tasks.events(task.id, after=seen, wait_s=60))
    other = await tasks.submit(SPEC, [], "ann")
    await asyncio.sleep(0)
    assert not waiting.done(), "an event of another task wakes nobody for good"
    await tasks.move(task.id, "running")
    async with asyncio.timeout(5):
        events = await waiting
    assert [event.body["state"] for event in events] == ["running"]
    assert {found.id for found in await tasks.find()} == {task.id, other.id}
    assert [found.id for found in await tasks.find("running")] == [task.id]


async def test_no_waiting_for_an_ended_task(tasks: Tasks) -> None:
    task = await tasks.submit(SPEC, [], "ann")
    last = (await tasks.move(task.id, "cancelled"), await tasks.events(task.id))[1][-1].number
    async with asyncio.timeout(5):
        assert await tasks.events(task.id, after=last, wait_s=60) == []
