"""`report.html`: one self-contained page with the table, the learning curves and what happened. No script, nothing from elsewhere."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from string import Template

from models.spec import Layer
from tools.demo.chart import Bar, bars, lines
from tools.demo.results import Curves, Results
from tools.demo.scenario import Scenario
from tools.demo.table import Prediction

_LAYERS: dict[Layer, tuple[str, str]] = {
    "end": ("Each end alone", "Every machine trains by itself, on its own rows only."),
    "cluster": (
        "Layer 1: each cluster at its gateway",
        "Ends of one schema share all parameters; the gateway averages them.",
    ),
    "cloud": (
        "Layer 2: both gateways with the cloud",
        "Gateways with unlike sensors share trunk and head; the coordinator averages what each of them averaged. One curve per end.",
    ),
}


def page(results: Results, curves: Curves, scenario: Scenario, prediction: Prediction) -> str:
    """The whole page."""
    template = Template(Path(__file__).with_suffix(".html").read_text())
    charts = "".join(
        f"<section><h2>{title}</h2><p>{text}</p>{_curves(curves, layer, scenario)}</section>"
        for layer, (title, text) in _LAYERS.items()
        if layer in curves.series
    )
    return template.substitute(
        about=escape(scenario.about),
        verdict=escape(_verdict(results)),
        bars="".join(f"<h3>{escape(name)}</h3>{bars(_bars(results, scenario, name))}" for name in results.by_cluster),
        table=_table(results, scenario),
        charts=charts,
        happened=_happened(results),
        curl=escape(prediction.curl),
        answer=escape(json.dumps(prediction.answer, indent=1)),
    )


def _curves(curves: Curves, layer: Layer, scenario: Scenario) -> str:
    """In the order of the scenario, so that an end has one colour in all charts."""
    names = [end.name for end in scenario.ends] + [cluster.name for cluster in scenario.clusters]
    found = curves.series[layer]
    return lines({name: found[name] for name in names if name in found}, "rounds", "RMSE on held-out runs, cycles")


def _verdict(results: Results) -> str:
    best = min(results.ends, key=lambda name: results.ends[name])
    ratio = results.federated / results.joined - 1
    return (
        f"Federated: {results.federated:.2f} cycles of error on machines nobody has seen. The best end alone, {best}, errs by "
        f"{results.ends[best]:.2f}; the same network trained on all data in one place by {results.joined:.2f} "
        f"({abs(ratio):.1%} {'less' if ratio > 0 else 'more'} than federated). No row left its gateway."
    )


def _bars(results: Results, scenario: Scenario, cluster: str) -> list[Bar]:
    compared = results.by_cluster[cluster]
    alone = [
        Bar(f"{end.name} alone", results.ends[end.name], "muted") for end in scenario.ends if end.cluster == cluster
    ]
    return [
        *alone,
        Bar("cluster", compared.cluster, "second"),
        Bar("federated", compared.federated, "first"),
        Bar("joined data", compared.joined, "ceiling"),
    ]


def _table(results: Results, scenario: Scenario) -> str:
    rows = []
    for end in scenario.ends:
        arrived = results.rows[end.name]
        cells = (
            end.name,
            end.cluster,
            scenario.cluster(end.cluster).gateway,
            end.serve,
            f"{arrived.stored} / {arrived.sent}",
        )
        rows.append(
            "".join(f"<td>{escape(cell)}</td>" for cell in cells) + f'<td class="n">{results.ends[end.name]:.2f}</td>'
        )
    return "".join(f"<tr>{row}</tr>" for row in rows)


def _happened(results: Results) -> str:
    named = {
        "start": "processes started and found each other",
        "ingest": "gateways read the machines",
        "end": "each end trained alone",
        "cluster": "each cluster trained at its gateway",
        "cloud": "both layers trained together",
        "joined": "the ceiling was trained on joined data",
    }
    steps = "".join(
        f'<li><span class="n">{results.phases[key]:.1f} s</span> {text}</li>' for key, text in named.items()
    )
    versions = ", ".join(f"{name} {number}" for name, number in results.versions.items())
    about = f"data {results.data}, seed {results.seed}, suite {results.suite}; {versions}"
    return f"<ol>{steps}</ol><p>{results.seconds:.0f} s from the command to the table. {escape(about)}</p>"
