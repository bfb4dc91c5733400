"""The life of a task, from an operator's call to a model in use at the plants: real coordinator, real members, real TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from coordinator.client import Client
from coordinator.errors import CallRefusedError
from coordinator.resources import Event, Task
from federation.aggregate import aggregate
from federation.rounds import RoundReport
from models.errors import ModelError
from models.learner import Params, Update
from models.spec import RoundsSpec, TaskSpec
from tests.coordinator.servers import fresh_databases
from tests.coordinator.world import Cloud, Gate, Plant, followed, rounds
from tests.federation.learners import Line
from trust.keys import SuiteName

SPEC = TaskSpec(name="wear", rounds=RoundsSpec(max=4))
AB = ("gateway-a", "gateway-b")


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


@pytest.mark.clause("8.9")
async def test_a_task_that_converges_ends_before_its_last_round(cloud: Cloud) -> None:
    spec = SPEC.model_copy(update={"rounds": RoundsSpec(max=50, tolerance=0.01, patience=2)})
    async with asyncio.timeout(60), cloud.running() as client, cloud.plants(*AB):
        events = await followed(client, await client.submit(spec))
        assert len(rounds(events)) < 20
        assert str(events[-1].body["reason"]).startswith(f"converged after {len(rounds(events))} rounds")


@pytest.mark.clause("8.3")
async def test_a_gateway_that_is_away_at_dispatch_gets_the_task_when_it_returns(cloud: Cloud) -> None:
    async with asyncio.timeout(60), cloud.running() as client, cloud.plant("gateway-a") as present:
        async with cloud.plant("gateway-b"):
            pass  # enrolled, and gone
        task = await client.submit(SPEC)
        await present.told("task.start")
        assert (await client.task(task.id)).state in ("submitted", "running")
        async with cloud.plant("gateway-b") as returned:
            assert (await returned.told("task.start")).meta["task"] == task.id
            events = await followed(client, task)
            assert events[-1].body["state"] == "finished"
            assert not any(event.body.get("missing") for event in events)


@pytest.mark.clause("9.4.3l")
async def test_a_task_survives_a_restart_of_the_coordinator_bit_for_bit(ca: Path, tmp_path: Path) -> None:
    gate = Gate.at(3)
    undisturbed, restarted = Cloud(ca, tmp_path / "undisturbed"), Cloud(ca, tmp_path / "restarted")
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        async with undisturbed.running() as client, undisturbed.plants(*AB):
            await followed(client, await client.submit(SPEC))
            expected = (await client.model("wear", 1)).digest

        async with restarted.running() as client:
            plants = await stack.enter_async_context(restarted.plants(*AB, make=gate))
            task = await client.submit(SPEC)
            await gate.reached.wait()
            assert (await client.task(task.id)).state == "running"
        gate.opened.set()
        async with restarted.running() as client:
            events = await followed(client, task)
            assert events[-1].body["state"] == "finished"
            assert sorted(set(rounds(events))) == [1, 2, 3, 4]
            assert (await client.model("wear", 1)).digest == expected
            assert [sum(message.header.kind == "task.start" for message in plant.heard) for plant in plants] == [1, 1]


async def test_cancelling_reaches_the_members(cloud: Cloud) -> None:
    gate = Gate.at(2)
    async with asyncio.timeout(60), cloud.running() as client, cloud.plants(*AB, make=gate) as plants:
        task = await client.submit(SPEC)
        await gate.reached.wait()
        with pytest.raises(CallRefusedError, match="is running, so it cannot become submitted; expected failed"):
            await client.resume(task.id)
        cancelled = await client.cancel(task.id)
        assert (cancelled.state, cancelled.reason) == ("cancelled", "cancelled by ann")
        for plant in plants:
            assert (await plant.told("task.cancel")).meta == {"task": task.id}
        with pytest.raises(CallRefusedError, match="is cancelled, so it cannot become cancelled"):
            await client.cancel(task.id)
        assert await client.models() == []


async def test_tasks_wait_their_turn_but_not_for_gateways_that_learn_alone(cloud: Cloud) -> None:
    gate = Gate.at(1)
    with cloud.config.open("a") as file:
        file.write("\n[limits]\nrunning_tasks = 1\n")
    async with asyncio.timeout(60), cloud.running() as client, cloud.plants(*AB, make=gate) as (a, _):
        alone = await client.submit(SPEC.model_copy(update={"layer": "cluster"}))
        first, second = [await client.submit(SPEC) for _ in range(2)]
        await gate.reached.wait()
        await a.told("task.start", 2)
        states = {task.id: task.state for task in await client.tasks()}
        assert states == {alone.id: "running", first.id: "running", second.id: "submitted"}
        gate.opened.set()
        assert (await followed(client, second))[-1].body["state"] == "finished"


class Broken(Line):
    """Cannot learn until it is mended."""

    mended = False

    async def fit(self, round_: int, params: Params) -> Update:
        if round_ == 3 and not self.mended:
            raise ModelError("FF-MODEL-002", f'no label at "{self.name}"', hint="label it")
        return await super().fit(round_, params)


async def test_a_failed_task_says_why_and_goes_on_when_it_is_mended(cloud: Cloud) -> None:
    made: list[Broken] = []

    def make(spec: TaskSpec, name: str) -> Line:
        made.append(Broken(spec, name))
        return made[-1]

    async with asyncio.timeout(60), cloud.running() as client, cloud.plants(*AB, make=make) as plants:
        task = await client.submit(SPEC)
        await followed(client, task)
        failed = await client.task(task.id)
        assert failed.state == "failed"
        assert 'gateway-a: FF-MODEL-002: no label at "gateway-a"' in failed.reason
        for plant in plants:
            await plant.told("task.cancel")
        Broken.mended = True
        await client.resume(task.id)
        events = await followed(client, task)
        assert events[-1].body["state"] == "finished"
        assert rounds(events) == [1, 2, 3, 4], "the rounds before the failure are not repeated"
        with pytest.raises(CallRefusedError, match="expected failed"):
            await client.resume(task.id)


async def test_gateways_that_learn_by_themselves_report_rounds_and_results(cloud: Cloud) -> None:
    """Layer "cluster": the coordinator only dispatches and takes down; a plant that failed is named."""

    async def learn(plant: Plant, result: dict[str, object]) -> None:
        start = await plant.told("task.start")
        spec, id_ = TaskSpec.model_validate(start.meta["spec"]), start.meta["task"]

        async def observe(report: RoundReport) -> None:
            await plant.node.send("cloud", "task.report", report.to_json(), task=id_)

        await aggregate(spec, [Line(spec, "press-1")], name="presses", layer="cluster", observe=observe)
        await plant.node.send("cloud", "task.result", result, task=id_)

    spec = SPEC.model_copy(update={"layer": "cluster"})
    made: dict[str, object] = {"models": {"wear-presses": {"version": 1, "promoted": True}}}
    error: dict[str, object] = {"error": {"code": "FF-PROGRAM-002", "message": "no end has a sample", "hint": ""}}
    async with asyncio.timeout(60), cloud.running() as client, cloud.plants(*AB) as (a, b):
        task = await client.submit(spec)
        await asyncio.gather(learn(a, made), learn(b, made))
        events = await followed(client, task)
        assert events[-1].body == {"state": "finished", "reason": "2 of 2 members have learned"}
        assert {(event.body["member"], event.body["round"]) for event in events if event.kind == "round"} == {
            (member, number) for member in AB for number in range(1, 5)
        }
        assert {event.body["member"] for event in events if event.kind == "result"} == set(AB)
        a.heard.clear()
        b.heard.clear()
        task = await client.submit(spec)
        await asyncio.gather(learn(a, made), learn(b, error))
        await followed(client, task)
        failed = await client.task(task.id)
        assert (failed.state, "gateway-b: no end has a sample" in failed.reason) == ("failed", True)


async def test_reports_of_strangers_to_a_task_are_dropped(cloud: Cloud) -> None:
    async with asyncio.timeout(60), cloud.running() as client, cloud.plants("gateway-a", "gateway-c") as (_, stranger):
        gone = await client.submit(SPEC.model_copy(update={"members": ("gateway-a",), "layer": "cluster"}))
        await stranger.node.send("cloud", "task.result", {"models": {}}, task=gone.id)
        await stranger.node.send("cloud", "task.report", {"round": "x"}, task=gone.id)
        real = await client.submit(SPEC.model_copy(update={"members": ("gateway-c",), "layer": "cluster"}))
        await stranger.told("task.start")
        await stranger.node.send("cloud", "task.result", {"models": {}}, task=real.id)
        await followed(client, real)  # what came before it was heard before it
        assert [event.kind for event in (await _so_far(client, gone))] == ["state", "state"]


class Objecting(Line):
    """Its plant serves something better."""

    async def finish(self, params: Params) -> Mapping[str, Any]:
        return {"models": {"wear-presses": {"promoted": False, "verdict": "held back: rmse at press-1 is 3, was 2"}}}


@pytest.mark.clause("8.10.1")
async def test_a_model_a_member_objects_to_is_held_and_all_serve_the_one_before(cloud: Cloud) -> None:
    async with asyncio.timeout(60), cloud.running() as client:
        async with cloud.plants(*AB) as plants:
            first = await client.submit(SPEC)
            await followed(client, first)
            for plant in plants:
                await plant.told("model.promote")
        async with cloud.plant("gateway-a") as a, cloud.plant("gateway-b", make=Objecting):
            second = await client.submit(SPEC)
            await followed(client, second)
            held = await client.model("wear", 2)
            assert (held.state, held.parent) == ("candidate", 1)
            assert held.reason == "held back: gateway-b: held back: rmse at press-1 is 3, was 2"
            assert (await client.model("wear", 1)).state == "promoted"
            assert (await a.told("model.promote")).meta == {"task": first.id, "model": "wear", "version": 1}


@pytest.mark.clause("8.10.2")
async def test_promote_and_roll_back_in_one_call_each_reach_the_plants(cloud: Cloud) -> None:
    async with asyncio.timeout(60), cloud.running() as client, cloud.plants(*AB) as (a, b):
        tasks = [await client.submit(SPEC) for _ in range(2)]
        for task in tasks:
            await followed(client, task)
        assert [model.state for model in await client.models()] == ["retired", "promoted"]
        made_by = {model.version: model.task for model in await client.models()}
        for plant in (a, b):
            await plant.told("model.promote", 2)
        assert (await client.roll_back("wear")).version == 1
        for plant in (a, b):
            assert (await plant.told("model.promote", 3)).meta["task"] == made_by[1]
        assert (await client.promote("wear", 2)).state == "promoted"
        for plant in (a, b):
            assert (await plant.told("model.promote", 4)).meta["task"] == made_by[2]


async def test_who_is_not_enrolled_is_named_with_the_nearest_that_is(cloud: Cloud) -> None:
    async with asyncio.timeout(60), cloud.running() as client:
        with pytest.raises(CallRefusedError, match="no gateway is enrolled yet"):
            await client.submit(SPEC)
        async with cloud.plant("gateway-a"):
            with pytest.raises(CallRefusedError, match=r'"gateway-z" is not enrolled \(did you mean "gateway-a"\?\)'):
                await client.submit(SPEC.model_copy(update={"members": ("gateway-a", "gateway-z")}))
            (participant,) = await client.participants()
            assert (participant.name, participant.role, participant.suite) == ("gateway-a", "gateway", "intl")
            assert participant.first_seen <= participant.last_seen


@pytest.mark.server("postgresql")
async def test_a_task_on_postgresql(ca: Path, tmp_path: Path) -> None:
    with fresh_databases() as fresh:
        cloud, gate = Cloud(ca, tmp_path, database=fresh()), Gate.at(2)
        async with asyncio.timeout(120), AsyncExitStack() as stack:
            async with cloud.running() as client:
                await stack.enter_async_context(cloud.plants(*AB, make=gate))
                task = await client.submit(SPEC)
                await gate.reached.wait()
            gate.opened.set()
            async with cloud.running() as client:
                events = await followed(client, task)
                assert events[-1].body["state"] == "finished"
                assert (await client.model("wear", 1)).state == "promoted"
    assert not (tmp_path / "data" / "coordinator.db").exists()


async def _so_far(client: Client, task: Task) -> list[Event]:
    found: list[Event] = []
    async for event in client.events(task.id):
        found.append(event)
        if event.body.get("state") == "running":
            break
    return found
