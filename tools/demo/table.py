"""The end of the demo on the screen: the table, a prediction to repeat, and where everything is."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from tools.demo.layout import Layout
from tools.demo.results import Results


@dataclass(frozen=True, slots=True)
class Prediction:
    """One call of the Open Inference Protocol, as it really was."""

    url: str
    body: dict[str, object]
    status: int
    answer: dict[str, object]

    @property
    def curl(self) -> str:
        """The same call for a shell."""
        return f"curl -s {shlex.quote(self.url)} -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(self.body))}"


def show(console: Console, results: Results, prediction: Prediction, layout: Layout) -> None:
    """Print it all."""
    console.print(_table(results, layout))
    rows = ", ".join(f"{name} {row.stored}/{row.sent}" for name, row in results.rows.items())
    console.print(f"rows stored of those the plant made: {rows}", highlight=False)
    console.print(f"{results.seconds:.0f} s from the command to this table\n", highlight=False)
    console.print("[bold]a prediction from the latest window of a machine[/]")
    console.print(prediction.curl, markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"{prediction.status} {json.dumps(prediction.answer)}\n", markup=False, highlight=False, soft_wrap=True
    )
    for name in ("results.json", "report.html", "logs"):
        console.print(f"{name:<13}{layout.folder / name}", markup=False, highlight=False, soft_wrap=True)


def _table(results: Results, layout: Layout) -> Table:
    table = Table(title="RMSE in cycles on machines nobody has seen (lower is better)", title_justify="left")
    clusters = list(results.by_cluster)
    table.add_column("trained on")
    for name in clusters:
        table.add_column(f"{name} ({results.test_windows[name]} windows)", justify="right")
    table.add_column("all", justify="right")
    for end in layout.scenario.ends:
        table.add_row(
            f"{end.name} alone",
            *(f"{results.ends[end.name]:.2f}" if end.cluster == name else "" for name in clusters),
            "",
        )
    for own in clusters:
        table.add_row(
            f"cluster {own}", *(f"{results.clusters[own]:.2f}" if own == name else "" for name in clusters), ""
        )
    table.add_section()
    columns = results.by_cluster.values()
    table.add_row(
        "[bold]federated, both layers",
        *(f"[bold]{one.federated:.2f}" for one in columns),
        f"[bold]{results.federated:.2f}",
    )
    table.add_row("joined data (ceiling)", *(f"{one.joined:.2f}" for one in columns), f"{results.joined:.2f}")
    return table
