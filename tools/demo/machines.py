"""The default demo: a machine shop with spindles and a pump house, each machine driven in its own way.

Every end sees a few runs in a narrow range of load and speed. The pumps are newer: fewer runs, never at high load, and load goes with
speed there, so that among themselves they cannot tell the two apart; the spindles can. What is judged is how well the remaining life
of other machines is told, driven in all ranges.
"""

from __future__ import annotations

from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from models.dataset import Rows, build
from models.spec import DataSpec, NetworkSpec, RoundsSpec, TaskSpec, TrainingSpec
from tools.demo.scenario import ClusterPlan, EndPlan, Scenario, TestSet
from tools.plant.config import Protocol
from tools.plant.physics import FIELDS, Kind, Machine, Regime

CAP = 80.0
TICK_S = 0.05
AFTER_S = 2.0
"""After its recorded runs a machine goes on at this pace, so that predictions are of a machine at work."""
TEST_MACHINES, TEST_RUNS = 20, 2
TEST_SEED = 1_000_000
"""Test machines come from another seed than any plant of a demo."""

Range = tuple[float, float]
_SHOP: tuple[tuple[str, Protocol, int, Range, Range], ...] = (
    ("spindle-1", "opcua", 5, (0.40, 0.50), (0.50, 0.65)),
    ("spindle-2", "opcua", 7, (0.62, 0.72), (0.85, 1.00)),
    ("spindle-3", "sql", 9, (0.85, 1.00), (0.65, 0.80)),
    ("pump-1", "modbus", 3, (0.40, 0.50), (0.50, 0.65)),
    ("pump-2", "modbus", 4, (0.50, 0.60), (0.70, 0.85)),
    ("pump-3", "sql", 5, (0.60, 0.70), (0.85, 1.00)),
)
_LIMITS: dict[Kind, dict[str, Range]] = {
    "spindle": {"vibration": (0, 50), "temperature": (-20, 200), "current": (0, 100), "speed": (0, 25000)},
    "pump": {
        "vibration": (0, 50),
        "temperature": (-20, 200),
        "pressure": (0, 25),
        "flow": (0, 250),
        "current": (0, 100),
        "speed": (0, 4000),
    },
}
_FAULTS = {
    "spindle-1": """\
[[machine.fault]]
kind = "bad"            # a loose sensor cable now and then
fields = ["vibration"]
probability = 0.004
cycles = 2
""",
    "pump-1": """\
[[machine.fault]]
kind = "dropout"        # the unit does not answer
probability = 0.003
cycles = 3
""",
}

SPEC = TaskSpec(
    name="life",
    data=DataSpec(window=10, holdout=0.2),
    network=NetworkSpec(encoder=(32,), trunk=(64, 32)),
    training=TrainingSpec(epochs=3, batch_size=32, learning_rate=2e-3, learning_rate_decay=0.9, weight_decay=1e-3),
    rounds=RoundsSpec(max=20),
)


def scenario(seed: int) -> Scenario:
    """Two gateways with different sensors, three machines each."""
    kinds: tuple[Kind, ...] = ("spindle", "pump")
    spec = SPEC.model_copy(update={"seed": seed})
    return Scenario(
        data="plant",
        about="Simulated spindles and pumps that wear out; the label is how many cycles remain until they fail.",
        clusters=tuple(
            ClusterPlan(f"{kind}s", gateway, _features(kind), _LIMITS[kind], CAP)
            for kind, gateway in zip(kinds, ("gateway-a", "gateway-b"), strict=True)
        ),
        ends=tuple(_end(seed, machine) for machine in _SHOP),
        tick_s=TICK_S,
        spec=spec,
        test={f"{kind}s": test_set(kind, seed, spec.data) for kind in kinds},
        files={},
    )


def test_set(kind: Kind, seed: int, data: DataSpec) -> TestSet:
    """Fresh machines, each driven in a range of its own; the ranges cover all loads and speeds."""
    parts = []
    for number in range(TEST_MACHINES):
        load, speed = 0.40 + 0.1125 * (number % 5), 0.50 + 0.35 * (number // 5) / 3
        regime = Regime((load, load + 0.15), (speed, speed + 0.15))
        machine = Machine(f"test-{number}", kind, seed=TEST_SEED + seed, regime=regime)
        parts.append(build(data.model_copy(update={"holdout": 0.0}), _rows(machine, TEST_RUNS), machine.name))
    return TestSet(np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts]))


def _rows(machine: Machine, runs: int) -> Rows:
    """The first runs of a machine as a gateway would label them."""
    made = list(takewhile(lambda row: row.run <= runs, machine.rows()))
    run = np.array([row.run for row in made], dtype=np.float64)
    cycle = np.array([row.cycle for row in made], dtype=np.float64)
    last = np.array([cycle[run == number].max() for number in range(1, runs + 1)])
    columns = [machine.fields.index(name) for name in _features(machine.kind)]
    values: NDArray[np.float64] = np.array([row.values for row in made])[:, columns]
    return Rows(np.arange(len(made)), values, run, np.minimum(last[run.astype(int) - 1] - cycle, CAP))


def _end(seed: int, plan: tuple[str, Protocol, int, Range, Range]) -> EndPlan:
    name, serve, runs, load, speed = plan
    kind: Kind = "spindle" if name.startswith("spindle") else "pump"
    machine = Machine(name, kind, seed=seed, regime=Regime(load, speed))
    section = (
        f'[[machine]]\nname = "{name}"\nkind = "{kind}"\nserve = "{serve}"\nunit = {name[-1]}\n'
        f"runs = {runs}                # at the plant's pace, then one cycle every after_s\nafter_s = {AFTER_S}\n"
        f"load = {list(load)}\nspeed = {list(speed)}\n{_FAULTS.get(name, '')}"
    )
    rows = sum(1 for _ in takewhile(lambda row: row.run <= runs, machine.rows()))
    return EndPlan(
        name=name,
        cluster=f"{kind}s",
        serve=serve,
        unit=int(name[-1]),
        served=machine.fields,
        rows=rows,
        runs=frozenset(range(1, runs + 1)),
        machine=section,
    )


def _features(kind: Kind) -> dict[str, str]:
    return {name: unit for name, unit in FIELDS[kind].items() if name != "quality"}
