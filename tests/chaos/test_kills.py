"""Whole trainings with real processes, killed at random moments: resumed, nothing counted twice, the model of an undisturbed run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.chaos.faults import KILLS, Storm
from tests.chaos.works import GATEWAYS, Works, spec, until

TRAININGS, FAULTS = 2, 12


@pytest.mark.e2e
@pytest.mark.clause("9.4.3l")
async def test_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    works = Works(tmp_path)
    async with asyncio.timeout(350), works.running() as client:
        calm = await works.train(client, spec())
        assert calm.task.state == "finished", calm.task.reason
        expected, rounds = await calm.digest(), calm.rounds()
        assert len(rounds) == 2 * (2 * 6) + 6 + 1, (
            "two clusters with two rounds in each of six, six of the cloud, the final model"
        )

        for name in GATEWAYS:
            works.count(name, 1, 500)
        storm = Storm(works, seed=1, kinds=KILLS)
        for training in range(1, TRAININGS + 1):
            raging = asyncio.create_task(storm.rage(training * FAULTS // TRAININGS, (0.3, 2.5)))
            stormy = await works.train(client, spec())
            await raging
            assert stormy.task.state == "finished", stormy.task.reason
            assert await stormy.digest() == expected
            assert stormy.rounds() == rounds
        assert storm.total == FAULTS
        assert set(storm.injected) == set(KILLS)
        for name in GATEWAYS:
            works.count(name, 501, 1000)

        async def all_read() -> bool:
            return all(len(works.readings(name)) >= 1000 for name in GATEWAYS)

        await until(all_read)
    assert [daemon.failures for daemon in works.daemons()] == [0, 0, 0], "nobody ended but by a kill"
    for name in GATEWAYS:
        assert works.readings(name) == list(range(1, 1001)), "each reading once, in order"
