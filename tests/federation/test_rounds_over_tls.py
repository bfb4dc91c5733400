"""Whole tasks over real TLS in both suites, members and aggregator in one event loop."""

from __future__ import annotations

import asyncio

import numpy as np

from federation.aggregate import Outcome, aggregate
from federation.remote import RemoteLearner, serve
from models.spec import RoundsSpec, TaskSpec
from tests.federation.conftest import MEMBERS, World
from tests.federation.learners import Line
from trust.keys import SuiteName

SPEC = TaskSpec(name="wear", rounds=RoundsSpec(max=3, deadline_s=20))


async def train(world: World, spec: TaskSpec, suites: dict[str, SuiteName]) -> tuple[Outcome, dict[str, Line]]:
    """One task over the wire; members open their context only after the aggregator has begun to ask."""
    ends = {name: Line(spec, name) for name in suites}
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:

        async def member(name: str) -> None:
            async with world.member(name, suites[name]) as node:
                await serve(node.context("task-1"), ends[name], aggregator="cloud")

        members = [tasks.create_task(member(name)) for name in suites]
        async with world.aggregator() as node:
            await world.everybody(suites)
            context = node.context("task-1")
            learners = [RemoteLearner(context, name) for name in suites]
            outcome = await aggregate(spec, learners, name="cloud", layer="cloud")
            await asyncio.wait(members)
            await context.close()
    return outcome, ends


async def test_a_task_over_the_wire_equals_the_task_in_one_process(world: World, suite_name: SuiteName) -> None:
    outcome, _ = await train(world, SPEC, dict.fromkeys(MEMBERS, suite_name))
    alone = await aggregate(SPEC, [Line(SPEC, name) for name in reversed(MEMBERS)], name="cloud", layer="cloud")
    assert outcome.params.keys() == alone.params.keys()
    for name, value in alone.params.items():
        np.testing.assert_array_equal(outcome.params[name], value)
    assert outcome.metrics == alone.metrics
    assert outcome.finished == {name: {"promoted": True} for name in MEMBERS}
