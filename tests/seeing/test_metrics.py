"""Every metric is documented, every documented one exists, and names and texts are as Prometheus wants them."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from common.metrics import Registry
from connectors.contract import Quality
from connectors.samples import SampleBlock
from federation.rounds import RoundReport
from gateway.config.seeing import DEFAULT_RULES
from gateway.seeing.rules import values_of
from tests.conftest import ROOT, need_program
from tests.coordinator.world import Cloud
from tests.gateway.plants import snapshot
from tests.seeing.gateways import gateway
from trust.tls import client_context

ROW = re.compile(r"^\| `(fedfab_\w+)` \| (\w+) \| ([\w, ]*) \| (\S+) \| (\w+) \| (.+?) \| (.*) \|$", re.MULTILINE)


class Documented(NamedTuple):
    type: str
    labels: frozenset[str]
    unit: str
    at: str


def documented() -> dict[str, Documented]:
    """Rows of docs/metrics.md by name of the family."""
    rows = ROW.findall((ROOT / "docs/metrics.md").read_text())
    names = [row[0] for row in rows]
    assert len(names) == len(set(names)), "a metric is explained twice"
    return {
        name.removesuffix("_total"): Documented(kind, frozenset(filter(None, labels.split(", "))), unit, at)
        for name, kind, labels, unit, at, *_ in rows
    }


def report(round_: int, loss: float) -> RoundReport:
    return RoundReport(
        "wear", "cluster", "machines", round_, False, {"rmse": 0.5}, {"m1": {"rmse": 0.5}}, loss, 10, [], {}, 0.1
    )  # fmt: skip


async def scraped(folder: Path, accept: str = "") -> bytes:
    """A gateway on which something has happened."""
    async with gateway(folder, metrics={"tag_old_after_s": 0}) as whole:
        (source,) = whole.runtime.sources
        whole.runtime.tags[source].note(_block())
        whole.programs.history.note("t1", "machines", report(1, 0.5))
        whole.meter.message_sent("cloud", 1000)
        whole.meter.message_received("cloud", 5000)
        whole.meter.up["cloud"] = True
        whole.server.metrics.ran("wear", 1, 0.001, [0.0])
        whole.server.metrics.answered("wear", "1", 200)
        return whole.seeing.registry.scrape(accept).body


def _block() -> SampleBlock:
    return SampleBlock.of([*snapshot(1, vibration=1.0), *snapshot(1, Quality.BAD, temperature=None)])


async def coordinator_page(cloud: Cloud) -> str:
    identity, trust = cloud.identity("ann")
    async with (
        cloud.running(),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_context(identity, trust))) as http,
        http.get(f"{cloud.url}/metrics") as response,
    ):
        return await response.text()


def check_documented(found: Iterable[Metric], at: str) -> None:
    families = {family.name: family for family in found}
    expected = {name: row for name, row in documented().items() if row.at in (at, "both")}
    assert sorted(families.keys() - expected.keys()) == [], "write them into docs/metrics.md"
    assert sorted(expected.keys() - families.keys()) == [], "they are in docs/metrics.md and nowhere else"
    for name, row in expected.items():
        assert row.type == families[name].type, name
        for sample in families[name].samples:
            assert sample.labels.keys() - {"le"} == row.labels, sample


@pytest.mark.clause("9.4.3a")
@pytest.mark.clause("9.4.3c")
@pytest.mark.clause("9.4.3d")
@pytest.mark.clause("9.4.2b")
async def test_every_metric_of_a_gateway_is_explained_and_every_explained_one_exists(tmp_path: Path) -> None:
    text = (await scraped(tmp_path)).decode()
    check_documented(parse(text), "gateway")
    values = values_of(parse(text))
    assert values["fedfab_source_tags"][("source", "m1"), ("state", "good")] == 1  # type: ignore[index]
    assert values["fedfab_source_tags"][("source", "m1"), ("state", "bad")] == 1  # type: ignore[index]
    assert values["fedfab_task_train_loss"][("group", "machines"), ("task", "t1")] == 0.5  # type: ignore[index]
    assert values["fedfab_box_memory_size_bytes"][()] > 1e8
    assert values["fedfab_process_memory_bytes"][(("process", "daemon"),)] > 1e7
    assert values["fedfab_federation_sent_bytes_total"][(("peer", "cloud"),)] == 1000


async def test_every_metric_of_a_coordinator_is_explained_and_every_explained_one_exists(
    ca: Path, tmp_path: Path
) -> None:
    check_documented(parse(await coordinator_page(Cloud(ca, tmp_path))), "coordinator")


async def test_names_units_and_texts_are_as_prometheus_wants_them(tmp_path: Path) -> None:
    wrong_units = re.compile(r"_(ms|milliseconds|us|minutes|hours|days|kb|mb|kib|mib|percent|bits)(_|$)")
    for family in parse((await scraped(tmp_path)).decode()):
        assert re.fullmatch(r"fedfab_[a-z0-9]+(_[a-z0-9]+)*", family.name), family.name
        assert not wrong_units.search(family.name), family.name
        assert family.documentation.endswith("."), f"{family.name} needs a text"
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket", "_gauge", "_counter")), family.name
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
    for name, row in documented().items():
        for unit in ("seconds", "bytes", "ratio"):
            assert (row.unit == unit) == name.endswith(f"_{unit}"), name


async def test_both_formats_are_read_by_the_official_parsers(tmp_path: Path) -> None:
    plain = list(parse((await scraped(tmp_path / "a")).decode()))
    text = (await scraped(tmp_path / "b", "application/openmetrics-text; version=1.0.0")).decode()
    assert text.endswith("# EOF\n")
    assert {family.name for family in parse_openmetrics(text)} == {family.name for family in plain}


@pytest.mark.server("promtool")
async def test_promtool_has_nothing_to_complain_about(tmp_path: Path) -> None:
    promtool = need_program("promtool", "apt-get install prometheus")
    text = await scraped(tmp_path)
    done = await asyncio.to_thread(
        subprocess.run, [promtool, "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_part_that_fails_blinds_no_other() -> None:
    class Broken:
        def collect(self) -> Iterable[Metric]:
            raise OSError("disk gone")

    class Well:
        def collect(self) -> Iterable[Metric]:
            yield GaugeMetricFamily("fedfab_well", "Well.", value=1)

    registry = Registry()
    registry.add("broken", Broken())
    registry.add("well", Well())
    registry.families()
    values = values_of(registry.families())
    assert values["fedfab_well"] == {(): 1.0}
    assert values["fedfab_scrape_failures_total"][(("part", "broken"),)] == 2


def test_shipped_alert_rules_watch_documented_metrics_and_are_named_there() -> None:
    page, known = (ROOT / "docs/metrics.md").read_text(), documented()
    for name, rule in DEFAULT_RULES.items():
        assert rule["metric"].removesuffix("_total") in known, name
        assert f"`{name}`" in page, f"{name} stands in no row of docs/metrics.md"
