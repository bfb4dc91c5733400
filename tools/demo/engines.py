"""The demo on real engines: NASA's C-MAPSS, replayed from four sites over two gateways.

Engines go to sites by number modulo 4. The protocol is the usual one: windows of 30 cycles, 14 sensors, remaining life capped at 125
in training and test, the last window of each test engine, shorter ones padded at the front.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.dataset import Rows, last_windows
from models.spec import DataSpec, NetworkSpec, RoundsSpec, TaskSpec, TrainingSpec
from tools.demo import cmapss
from tools.demo.scenario import ClusterPlan, EndPlan, Scenario, TestSet
from tools.plant.config import Protocol

CAP = 125.0
SITES: tuple[tuple[str, str, Protocol], ...] = (
    ("site-0", "hangar-a", "opcua"),
    ("site-1", "hangar-a", "modbus"),
    ("site-2", "hangar-b", "sql"),
    ("site-3", "hangar-b", "opcua"),
)
_FIELDS = {f"sensor-{number}": "" for number in cmapss.SENSORS}

TICK_S = 0.008

SPEC = TaskSpec(
    name="life",
    data=DataSpec(window=30, holdout=0.1),
    network=NetworkSpec(encoder=(128,), trunk=(64,)),
    training=TrainingSpec(epochs=2, batch_size=128, learning_rate=5e-4, learning_rate_decay=0.85),
    rounds=RoundsSpec(max=15),
)


def scenario(folder: Path, subset: str, seed: int) -> Scenario:
    """The four sites of a subset such as FD001. Raises ToolError FF-DEMO-004, FF-DEMO-005."""
    data = cmapss.load(folder, subset)
    spec = SPEC.model_copy(update={"seed": seed})
    test = _test_set(data, spec.data.window)
    sites = [data.train[data.train[:, 0] % len(SITES) == number] for number in range(len(SITES))]
    return Scenario(
        data=f"cmapss:{subset}",
        about=f"NASA turbofan engines, C-MAPSS {subset}: {len(np.unique(data.train[:, 0]))} run to failure, "
        f"{len(test.y)} to be judged. {data.about}".strip(),
        clusters=tuple(
            ClusterPlan(cluster, gateway, _FIELDS, {}, CAP)
            for cluster, gateway in (("hangar-a", "gateway-a"), ("hangar-b", "gateway-b"))
        ),
        ends=tuple(
            EndPlan(
                name=name,
                cluster=cluster,
                serve=serve,
                unit=1,
                served=tuple(_FIELDS),
                rows=len(rows),
                runs=frozenset(map(int, rows[:, 0])),
                machine=_section(name, serve),
            )
            for (name, cluster, serve), rows in zip(SITES, sites, strict=True)
        ),
        tick_s=TICK_S,
        spec=spec,
        test={"hangar-a": test, "hangar-b": test},
        files={Path(f"{name}.csv"): _csv(rows) for (name, *_), rows in zip(SITES, sites, strict=True)},
    )


def _test_set(data: cmapss.Subset, window: int) -> TestSet:
    engines = data.test[:, 0]
    rows = Rows(np.arange(len(data.test)), data.test[:, 2:], engines, np.full(len(engines), np.nan))
    windows = last_windows(window, rows, "test")
    remaining = data.remaining[np.searchsorted(np.unique(engines), windows.group)]
    return TestSet(windows.x, np.minimum(remaining, CAP).astype(np.float32))


def _section(name: str, serve: Protocol) -> str:
    pace = "tick_s = 0.0               # its reader sets the pace\n" if serve == "modbus" else ""
    return f'[[replay]]\nname = "{name}"\nserve = "{serve}"\nfile = "{name}.csv"\n{pace}'


def _csv(rows: NDArray[np.float64]) -> bytes:
    text = io.StringIO()
    np.savetxt(text, rows, fmt="%.10g", delimiter=",", header=",".join(("run", "cycle", *_FIELDS)), comments="")
    return text.getvalue().encode()
