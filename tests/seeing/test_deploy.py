"""What is shipped for Grafana and Prometheus fits their models and asks for metrics that exist."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.conftest import ROOT, need_program
from tests.seeing.test_metrics import documented

GRAFANA, PROMETHEUS = ROOT / "deploy/grafana", ROOT / "deploy/prometheus"
PAGES = sorted(GRAFANA.glob("*.json"))


def expressions(page: dict[str, Any]) -> Iterator[str]:
    for panel in page["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (variable["query"] for variable in page["templating"]["list"] if variable["type"] == "query")


def series() -> set[str]:
    """Names under which the documented metrics can be asked for."""
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return {name + suffix for name, row in documented().items() for suffix in suffixes[row.type]}


def unknown(text: str) -> set[str]:
    """Metrics in this text that docs/metrics.md does not have."""
    return set(re.findall(r"\bfedfab_\w+", text)) - series()


def lost(given: Any, kept: Any, path: str = "") -> list[str]:
    """What the model of Grafana does not know, by its place."""
    if isinstance(given, dict):
        return [
            place
            for name, value in given.items()
            for place in ([f"{path}/{name}"] if name not in kept else lost(value, kept[name], f"{path}/{name}"))
        ]
    if isinstance(given, list):
        return [place for i, each in enumerate(given) for place in lost(each, kept[i], f"{path}/{i}")]
    return [] if given == kept else [path]


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.stem)
def test_a_dashboard_fits_the_model_of_grafana(file: Path) -> None:
    given = json.loads(file.read_text())
    kept = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(given)))
    assert lost(given, kept) == []
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in given["panels"]]
    assert len(set(places)) == len(places), "panels lie upon each other"
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in given["panels"])


def test_what_the_model_does_not_know_is_found() -> None:
    given = {"title": "x", "panells": []}
    assert lost(given, json.loads(JSONEncoder().encode(Dashboard.from_json(given)))) == ["/panells"]


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.stem)
def test_a_dashboard_asks_for_metrics_that_exist(file: Path) -> None:
    found = list(expressions(json.loads(file.read_text())))
    assert len(found) >= 8
    assert {name for each in found for name in unknown(each)} == set()


def test_alert_rules_ask_for_metrics_that_exist() -> None:
    text = (PROMETHEUS / "fedfab.rules.yml").read_text()
    assert unknown("\n".join(re.findall(r"expr: (.*)", text))) == set()
    assert unknown("fedfab_nonsense rate(fedfab_buffer_dropped[5m])") == {"fedfab_nonsense", "fedfab_buffer_dropped"}


def test_the_dashboards_are_those_the_script_writes() -> None:
    made = runpy.run_path(str(GRAFANA / "dashboards.py"))["DASHBOARDS"]
    assert {dashboard.name: dashboard.to_json() for dashboard in made} == {
        file.stem: json.loads(file.read_text()) for file in PAGES
    }, "run: python deploy/grafana/dashboards.py"


@pytest.mark.server("promtool")
def test_prometheus_takes_the_configuration_the_rules_and_every_query(tmp_path: Path) -> None:
    promtool = need_program("promtool", "apt-get install prometheus")
    queries = [
        each.replace("$__rate_interval", "1m")
        for file in PAGES
        for each in expressions(json.loads(file.read_text()))
        if not each.startswith("label_values")
    ]
    rules = [{"record": f"q:{i}", "expr": each} for i, each in enumerate(queries)]
    (tmp_path / "queries.yml").write_text(json.dumps({"groups": [{"name": "dashboards", "rules": rules}]}))
    for command in (
        ("check", "config", PROMETHEUS / "prometheus.yml"),
        ("check", "rules", PROMETHEUS / "fedfab.rules.yml"),
        ("check", "rules", tmp_path / "queries.yml"),
    ):
        done = subprocess.run([promtool, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
