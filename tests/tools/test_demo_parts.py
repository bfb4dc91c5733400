"""What the demo is made of: files the product accepts, a report a browser accepts, processes that never outlive it."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from common import tomlfile
from coordinator.configfile import load_config as load_coordinator
from gateway.configfile import load as load_gateway
from models.dataset import Dataset
from models.schema import FieldSpec, Schema
from models.spec import DataSpec, Layer, NetworkSpec, RoundsSpec, TaskSpec, TrainingSpec
from tools.demo import joined, layout, machines, report
from tools.demo.processes import Processes
from tools.demo.results import Arrived, Compared, Curves, Results
from tools.demo.run import Options, run
from tools.demo.table import Prediction
from tools.errors import ToolError
from tools.plant.config import load as load_plant


def test_every_file_it_writes_is_accepted_by_the_part_it_is_for(tmp_path: Path) -> None:
    scenario = machines.scenario(3)
    made = layout.make(tmp_path, scenario, "intl")
    plant = load_plant(made.config("plant"))
    assert {machine.name: machine.runs for machine in plant.machines} == {
        end.name: max(end.runs) for end in scenario.ends
    }
    for gateway in scenario.gateways:
        config = load_gateway(made.config(gateway))
        assert {end.name for end in config.ends} == {end.name for end in scenario.ends_at(gateway)}
        for cluster in config.clusters:
            assert config.schema_of(cluster.name) == scenario.cluster(cluster.name).schema
    assert load_coordinator(made.config("coordinator")).listens[0].suite == "intl"
    for layer in layout.LAYERS:
        assert tomlfile.load(made.task(layer), TaskSpec, hint="") == made.spec(layer)
    budgets = {made.spec(layer).rounds.max * made.spec(layer).training.epochs for layer in layout.LAYERS}
    assert len(budgets) == 1, "all three tasks train for the same number of epochs"


def test_gateways_have_unlike_sensors_and_test_machines_are_never_shown() -> None:
    scenario = machines.scenario(0)
    one, other = (cluster.schema for cluster in scenario.clusters)
    assert one.difference(other) is not None
    assert not {"test-0"} & {end.name for end in scenario.ends}
    same, next_seed = machines.scenario(0), machines.scenario(1)
    for name, test in scenario.test.items():
        np.testing.assert_array_equal(test.x, same.test[name].x)
        assert test.x.shape != next_seed.test[name].x.shape or (test.x != next_seed.test[name].x).any()


def a_result() -> tuple[Results, Curves]:
    scenario = machines.scenario(0)
    results = Results(
        data="plant",
        seed=0,
        suite="gm",
        ends={end.name: 20.0 + number for number, end in enumerate(scenario.ends)},
        clusters={cluster.name: 12.0 for cluster in scenario.clusters},
        federated=9.5,
        joined=9.0,
        by_cluster={cluster.name: Compared(cluster=12.0, federated=9.5, joined=9.0) for cluster in scenario.clusters},
        rows={end.name: Arrived(sent=100, stored=99) for end in scenario.ends},
        test_windows={cluster.name: 10 for cluster in scenario.clusters},
        seconds=100.0,
        phases=dict.fromkeys(("start", "ingest", "end", "cluster", "cloud", "joined"), 1.5),
        versions={"fedfab": "<1>"},
    )
    curves = Curves()
    body = {"final": False, "per_end": {}}
    for round_ in range(1, 4):
        for end in scenario.ends:
            curves.add(
                "end", {**body, "layer": "end", "name": end.name, "round": round_, "metrics": {"rmse": 30 / round_}}
            )
        per_end = {f"gateway/{end.name}": {"rmse": 25 / round_} for end in scenario.ends}
        curves.add(
            "cloud", {**body, "layer": "cloud", "name": "cloud", "round": round_, "metrics": {}, "per_end": per_end}
        )
        curves.add("cloud", {**body, "layer": "cluster", "name": "spindles", "round": round_, "metrics": {"rmse": 1.0}})
    return results, curves


class Page(HTMLParser):
    """Checks that tags nest, and collects what would be fetched from elsewhere."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.outside += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_well_formed_page_with_a_curve_for_every_end() -> None:
    results, curves = a_result()
    prediction = Prediction("http://127.0.0.1:1/x", {"parameters": {"end": "<a>"}}, 200, {"outputs": []})
    text = report.page(results, curves, machines.scenario(0), prediction)
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.outside == [], "nothing is fetched from elsewhere"
    assert "prefers-color-scheme: dark" in text
    assert "&lt;a&gt;" in text
    assert "<a>" not in text
    assert "fedfab &lt;1&gt;" in text
    charts = [
        ElementTree.fromstring(svg + "</svg>")
        for svg in text.split("</svg>")[:-1]
        for svg in [svg[svg.index("<svg") :]]
    ]
    drawn = [len(chart.findall("polyline")) for chart in charts if chart.findall("polyline")]
    assert drawn == [6, 6], "each end alone, and each end in both layers; inner rounds of clusters are not drawn twice"
    for chart in charts:
        for line in chart.findall("polyline"):
            xs = [float(point.split(",")[0]) for point in line.attrib["points"].split()]
            assert all(a < b for a, b in pairwise(xs))
            assert "".join(chart.itertext()).strip(), "axes have numbers"


def test_joined_training_shares_trunk_and_head_and_learns() -> None:
    random = np.random.default_rng(0)
    spec = TaskSpec(
        name="t",
        data=DataSpec(window=2, holdout=0.0),
        network=NetworkSpec(encoder=(16,), trunk=(16,)),
        training=TrainingSpec(batch_size=32, learning_rate=5e-3),
        rounds=RoundsSpec(max=30),
    )
    parts = []
    for count in (3, 4):
        x = random.normal(size=(256, 2, count)).astype(np.float32)
        fields = tuple(FieldSpec(name=f"f{count}-{number}") for number in range(count))
        held = np.zeros(256, dtype=np.bool_)
        data = Dataset(x, x.sum(axis=(1, 2)), held, np.zeros(256), np.arange(256))
        parts.append((Schema(fields=fields, label=FieldSpec(name="y")), data))
    params = joined.train(spec, parts)
    assert sum(name.startswith("encoder@") for name in params) == 4
    assert sum(name.startswith(("trunk/", "head/")) for name in params) == 4, "one trunk and one head for both"
    from models.training import predict

    for schema, data in parts:
        error = predict(spec, schema, params, data.x) - data.y
        assert np.mean(error**2) < 0.1 * np.var(data.y)


async def test_a_process_that_ends_is_named_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "dies.py").write_text("import sys; print('no oil left'); sys.exit(7)")
    async with Processes(tmp_path, tmp_path / "logs") as processes:
        await processes.start("pump", "dies")
        with pytest.raises(ToolError, match=r"pump ended with exit code 7[\s\S]*no oil left") as caught:
            await asyncio.wait_for(processes.watch(), 30)
    assert caught.value.code == "FF-DEMO-001"


async def test_no_process_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "stays.py").write_text("import signal; print('up', flush=True); signal.pause()")
    pids = []

    async def fail() -> None:
        async with Processes(tmp_path, tmp_path / "logs") as processes:
            pids.extend([(await processes.start(f"p{n}", "stays")).process.pid for n in range(2)])
            raise RuntimeError("something went wrong")

    with pytest.raises(RuntimeError):
        await fail()
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_even_a_killed_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    (tmp_path / "stays.py").write_text("import signal; signal.pause()")
    (tmp_path / "demo.py").write_text(
        "import asyncio, signal\nfrom pathlib import Path\nfrom tools.demo.processes import Processes\n"
        "async def main():\n    async with Processes(Path('.'), Path('logs')) as processes:\n"
        "        print((await processes.start('p', 'stays')).process.pid, flush=True)\n        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen([sys.executable, "demo.py"], cwd=tmp_path, stdout=subprocess.PIPE, env=environment) as demo:
        assert demo.stdout is not None
        child = os.pidfd_open(int(demo.stdout.readline()))
        demo.kill()
    ended, _, _ = select.select([child], [], [], 10)
    os.close(child)
    assert ended, "the kernel ended it with its parent"


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        ("cmapss", "FF-DEMO-004", "FEDFAB_DATA"),
        ("cmaps", "FF-DEMO-008", 'got "cmaps"'),
    ],
)
def test_what_cannot_be_shown_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, code: str, said: str
) -> None:
    monkeypatch.setenv("FEDFAB_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ToolError) as caught:
        run(Options(once=True, out=tmp_path / "out", data=data, seed=0, suite="gm"))
    assert caught.value.code == code
    assert said in str(caught.value)


def test_results_of_an_earlier_demo_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ToolError, match="not empty") as caught:
        run(Options(once=True, out=tmp_path, data="plant", seed=0, suite="gm"))
    assert caught.value.code == "FF-DEMO-007"


def test_layers_are_those_of_the_standard() -> None:
    expected: tuple[Layer, ...] = ("end", "cluster", "cloud")
    assert tuple(layout.LAYERS) == expected
