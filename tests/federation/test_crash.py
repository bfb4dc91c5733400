"""Real processes, killed with SIGKILL: nothing that was promised is lost, and nothing is done twice."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import numpy as np
import pytest

from federation.aggregate import aggregate
from models.parameters import from_bytes
from tests.conftest import ROOT, free_port
from tests.federation.conftest import World
from tests.federation.crashing import MEMBERS, ROUNDS, SPEC
from tests.federation.learners import Line


async def start(role: str, folder: Path, ca: Path, port: int) -> Process:
    """A process of `tests.federation.crashing`."""
    command = [sys.executable, "-m", "tests.federation.crashing", role, str(folder), str(ca), str(port)]
    return await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE)


async def said(process: Process, line: str) -> None:
    """Wait until the process has said ``line``."""
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while (got := (await process.stdout.readline()).decode().strip()) != line:
            assert got or not process.stdout.at_eof(), f"the process ended before it said {line!r}"


@pytest.mark.e2e
@pytest.mark.clause("9.4.3l")
@pytest.mark.parametrize("victim", ["lead", "gateway-a"])
async def test_a_killed_process_takes_the_task_up_again(ca: Path, tmp_path: Path, victim: str) -> None:
    """Aggregator or member are killed in round 3 and started again: the final parameters are those of an undisturbed run."""
    port = free_port()
    processes = {role: await start(role, tmp_path, ca, port) for role in ("lead", *MEMBERS)}
    try:
        await said(processes[victim], "round 3" if victim == "lead" else "fit 3")
        processes[victim].kill()
        await processes[victim].wait()
        processes[victim] = await start(victim, tmp_path, ca, port)
        await said(processes["lead"], f"round {ROUNDS}")
        async with asyncio.timeout(60):
            assert [await process.wait() for process in processes.values()] == [0, 0, 0]
    finally:
        for process in processes.values():
            if process.returncode is None:
                process.kill()
    final = from_bytes((tmp_path / "final").read_bytes())
    undisturbed = await aggregate(SPEC, [Line(SPEC, name) for name in MEMBERS], name="cloud", layer="cloud")
    assert final.keys() == undisturbed.params.keys()
    for name, value in undisturbed.params.items():
        np.testing.assert_array_equal(final[name], value)


@pytest.mark.e2e
async def test_what_an_outbox_has_taken_arrives_whatever_happens_to_its_process(world: World, ca: Path) -> None:
    """The member is killed while it writes and sends; what it had called durable arrives, in order, once, and whole."""
    async with world.aggregator() as cloud:
        process = await start("report", world.folder, ca, world.ports["intl"])
        try:
            await world.everybody(["gateway-a"])
            await said(process, "20")
        finally:
            process.kill()
        assert process.stdout is not None
        durable = max([20, *map(int, (await process.stdout.read()).split())])
        arrived = []
        async with world.member("gateway-a", "intl"), asyncio.timeout(60):
            while durable not in arrived:
                message = await anext(cloud.unclaimed())
                params = await message.params()
                assert params is not None
                assert (params["trunk/0.weight"] == message.meta["number"]).all()
                arrived.append(message.meta["number"])
                await message.done()
        assert arrived == list(range(durable + 1))
