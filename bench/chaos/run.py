"""Trainings under faults: kills, pauses, cut and slow lines, while both plants deliver numbered readings. Aim: nothing lost, nothing twice.

    .venv/bin/python -m bench.chaos.run [--faults 100] [--seed 0]

Real processes on loopback (`tests.chaos`). First every task is trained once undisturbed; then faults come one after another while the
same tasks are trained again and again. Figures go to results/chaos.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.faults import KILLS, LINES, PAUSES, Storm
from tests.chaos.works import GATEWAYS, Training, Works, spec, until

HERE = Path(__file__).parent
SEEDS = 3
"""Tasks trained in turn."""
READINGS_PER_S = 50
DRAIN_S = 120.0
"""For the last readings to arrive after the last fault."""


@dataclass
class Figures:
    """What came of it."""

    trainings: int = 0
    not_finished: list[str] = field(default_factory=list)
    digests_equal: int = 0
    updates_doubled: int = 0
    """Rounds reported twice, or with other samples than the undisturbed run's."""
    reports_lost: int = 0
    readings: int = 0
    readings_lost: int = 0
    readings_doubled: int = 0
    own_failures: int = 0
    """Daemons that ended by themselves."""
    faults: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--pause-s", type=float, nargs=2, default=(0.3, 3.0), help="least and greatest pause between faults"
    )
    parser.add_argument("--keep", type=Path, help="work in this folder and keep it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        figures = asyncio.run(measure(folder, options.faults, options.seed, tuple(options.pause_s)))
    result = {
        **vars(figures),
        "faults": dict(figures.faults),
        "faults_total": figures.faults.total(),
        "seed": options.seed,
    }
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "chaos.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))
    wrong = figures.updates_doubled or figures.readings_lost or figures.digests_equal < figures.trainings
    sys.exit(1 if wrong else 0)


async def measure(folder: Path, faults: int, seed: int, pause_s: tuple[float, float]) -> Figures:
    """Storm until so many faults are injected, and count."""
    figures, start = Figures(), time.monotonic()
    works = Works(folder)
    async with works.running() as client:
        calm = [await works.train(client, spec(seed=number)) for number in range(SEEDS)]
        digests = [await one.digest() for one in calm]
        storms = [
            Storm(works, seed, KILLS + PAUSES),
            Storm(works, seed + 1, LINES),
        ]  # a line may be down while a process dies
        over = asyncio.Event()
        delivering = asyncio.create_task(deliver(works, over))
        share = -(-faults // len(storms))
        raging = asyncio.gather(*(storm.rage(share, pause_s) for storm in storms))
        while not raging.done():
            number = figures.trainings % SEEDS
            await judge(figures, await works.train(client, spec(seed=number)), calm[number], digests[number])
            figures.faults = sum((storm.injected for storm in storms), Counter())
            print(
                f"{figures.faults.total()} faults, {figures.trainings} trainings, {figures.digests_equal} equal",
                flush=True,
            )
        await raging
        over.set()
        figures.readings = await delivering
        await judge(figures, await works.train(client, spec(seed=0)), calm[0], digests[0])  # as it was, after the storm
        await drained(works, figures.readings)
    figures.faults = sum((storm.injected for storm in storms), Counter())
    figures.own_failures = sum(daemon.failures for daemon in works.daemons())
    for name in GATEWAYS:
        found = works.readings(name)
        figures.readings_lost += len(set(range(1, figures.readings + 1)) - set(found))
        figures.readings_doubled += len(found) - len(set(found))
    figures.seconds = round(time.monotonic() - start, 1)
    return figures


async def judge(figures: Figures, training: Training, calm: Training, digest: str) -> None:
    """One training beside its undisturbed twin."""
    figures.trainings += 1
    if training.task.state != "finished":
        figures.not_finished.append(training.task.reason)
        return
    figures.digests_equal += await training.digest() == digest
    expected, found = calm.rounds(), training.rounds()
    figures.reports_lost += len(expected.keys() - found.keys())
    figures.updates_doubled += sum(reports != expected.get(key) for key, reports in found.items())


async def deliver(works: Works, over: asyncio.Event) -> int:
    """The plants write numbers until it is over; gives the last one."""
    written = 0
    while not over.is_set():
        for name in GATEWAYS:
            await asyncio.to_thread(works.count, name, written + 1, written + READINGS_PER_S)
        written += READINGS_PER_S
        await asyncio.sleep(1)
    return written


async def drained(works: Works, readings: int) -> None:
    """Wait until the stores have them all, or no longer."""

    async def there() -> bool:
        return all(readings in works.readings(name) for name in GATEWAYS)

    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            await until(there)


if __name__ == "__main__":
    main()
