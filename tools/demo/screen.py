"""What a person sees while the demo runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from models.spec import Layer

LINE_S = 5.0
"""Seconds between two plain lines about the same thing."""
TITLES: dict[Layer, str] = {
    "end": "each end alone",
    "cluster": "each cluster (layer 1)",
    "cloud": "both layers, federated",
}


@dataclass(slots=True)
class Screen:
    """Told what happens, it shows it. Use as a context manager."""

    console: Console
    rounds: int
    phase: str = ""
    readings: int = 0
    rate: float = 0.0
    ends: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Rows stored and rows to come, by end."""
    learned: dict[Layer, dict[str, tuple[int, float | None]]] = field(default_factory=dict)
    """Latest round and validation error of each model, by layer."""
    _live: Live | None = None
    _said: float = 0.0
    _since: float = field(default_factory=time.monotonic)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def enter(self, phase: str) -> None:
        """A new phase has begun."""
        self.phase = phase
        self._line(phase, always=True)

    def ingested(self, readings: int, ends: Mapping[str, tuple[int, int]], seconds: float) -> None:
        """How much has arrived, ``seconds`` after the last time."""
        self.rate = (readings - self.readings) / seconds if seconds > 0 else 0.0
        self.readings = readings
        self.ends = dict(ends)
        rows = ", ".join(f"{name} {stored}/{sent}" for name, (stored, sent) in ends.items())
        self._line(f"{readings} readings, {self.rate:.0f}/s; rows: {rows}")

    def round(self, layer: Layer, name: str, round_: int, error: float | None) -> None:
        """A model has been trained for so many rounds."""
        self.learned.setdefault(layer, {})[name] = (round_, error)
        shown = "" if error is None else f", validation RMSE {error:.2f}"
        self._line(f"{TITLES[layer]}: {name} round {round_}/{self.rounds}{shown}", always=round_ == self.rounds)

    def _line(self, text: str, *, always: bool = False) -> None:
        now = time.monotonic()
        if self._live is None and (always or now - self._said >= LINE_S):
            self._said = now
            self.console.print(f"[{now - self._since:6.1f} s] {text}", markup=False, highlight=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        head = f"[bold]fedfab demo[/]  {escape(self.phase)}  [dim]{time.monotonic() - self._since:.0f} s[/]"
        machines = Table(
            title=f"machines: {self.readings:,} readings, {self.rate:,.0f}/s", title_justify="left", box=None
        )
        for column in ("end", "rows", ""):
            machines.add_column(column, justify="right" if column == "rows" else "left")
        for name, (stored, sent) in self.ends.items():
            machines.add_row(name, f"{stored}/{sent}", ProgressBar(total=sent, completed=min(stored, sent), width=30))
        learning = Table(title="learning: validation RMSE on held-out runs, in cycles", title_justify="left", box=None)
        for column in ("", "model", "round", "RMSE"):
            learning.add_column(column, justify="right" if column in ("round", "RMSE") else "left")
        for layer, models in self.learned.items():
            for name, (round_, error) in models.items():
                shown = "" if error is None else f"{error:.2f}"
                learning.add_row(TITLES[layer], name, f"{round_}/{self.rounds}", shown)
        return Group(head, "", machines, "", learning) if self.learned else Group(head, "", machines)
