"""Power cuts at random moments: whatever part of the unsynchronised writes reached the disk, no acknowledged block is lost."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need_program
from tests.gateway.store import MEMORY, plant, powerloss
from tests.gateway.store.powerloss import Disk, Event, Operation

BATCHES = 1100  # enough for one window of raw blocks to be merged
CUTS = 150


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    need_program("gcc", "apt-get install gcc")
    folder = tmp_path_factory.mktemp("busy")
    command = [sys.executable, "-m", "tests.gateway.store.plant", str(folder), str(BATCHES)]
    return powerloss.record(command, folder, tmp_path_factory.mktemp("work"))


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory, where there is one: the images are thrown away, no disk has to keep them."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


def cuts(trace: list[Event], moments: int, seed: int, folder: Path) -> None:
    """Cut the power at that many moments and look at what is left each time. Raises AssertionError."""
    chance = random.Random(seed)
    disk, acknowledged, done = Disk(), 0, 0
    for moment in sorted(chance.sample(range(1, len(trace) + 1), moments)):
        for event in trace[done:moment]:
            if event.name == "acknowledged" and event.operation == Operation.WRITE:
                acknowledged = int(event.data)
            disk.take(event)
        done = moment
        left = folder / "left"
        left.mkdir()
        for name, content in disk.after_a_cut(chance).items():
            (left / name).write_bytes(content)
        try:
            plant.verify(left / "store.db", acknowledged)
        except Exception as error:
            raise AssertionError(f"power cut after event {moment} of {len(trace)}, seed {seed}") from error
        shutil.rmtree(left)


@pytest.mark.clause("9.4.1.1d")
def test_no_acknowledged_block_is_lost_by_a_power_cut(trace: list[Event], memory: Path) -> None:
    synced = sum(event.operation == Operation.SYNC for event in trace)
    assert synced > BATCHES
    cuts(trace, CUTS, 1, memory)


def test_the_simulation_sees_what_is_not_synchronised(trace: list[Event], memory: Path) -> None:
    """Without synchronisation of the log the same store does lose blocks: the test above can fail."""
    careless = [event for event in trace if not (event.operation == Operation.SYNC and event.name.endswith("-wal"))]
    with pytest.raises(AssertionError, match="power cut after event"):
        cuts(careless, CUTS, 1, memory)
