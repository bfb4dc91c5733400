"""Two kinds of chart as inline SVG; colours come from the page, so that they suit light and dark. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH = 840
COLOURS = 6
"""Line colours the page defines, ``--c0`` … ``--c5``."""

Points = Sequence[tuple[int, float]]


class Bar(NamedTuple):
    """One bar: its text, length and the page's colour for it."""

    label: str
    value: float
    colour: str


def lines(series: Mapping[str, Points], x_title: str, y_title: str) -> str:
    """A line for each series over common axes, with a legend above."""
    left, right, top, bottom = 56, 16, 40, 250
    xs = [x for points in series.values() for x, _ in points]
    x_marks, y_marks = _marks(0, max(xs)), _marks(0, max(y for points in series.values() for _, y in points))

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (WIDTH - left - right) * x / x_marks[-1], bottom - (bottom - top) * y / y_marks[-1]

    parts = []
    for mark in y_marks:
        _, y = at(0, mark)
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{WIDTH - right}" y2="{y:.1f}" stroke="var(--line)"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{mark:g}</text>')
    for mark in x_marks:
        parts.append(f'<text x="{at(mark, 0)[0]:.1f}" y="{bottom + 18}" text-anchor="middle">{mark:g}</text>')
    parts.append(
        f'<text x="{(left + WIDTH - right) / 2}" y="{bottom + 38}" text-anchor="middle">{escape(x_title)}</text>'
    )
    middle = (top + bottom) / 2
    parts.append(f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(y_title)}</text>')
    step = (WIDTH - left - right) / max(len(series), 4)
    for number, (name, points) in enumerate(series.items()):
        colour, x = f"var(--c{number % COLOURS})", left + number * step
        path = " ".join("{:.1f},{:.1f}".format(*at(*point)) for point in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>'
        )
        parts.append(f'<line x1="{x:.1f}" y1="14" x2="{x + 18:.1f}" y2="14" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{x + 24:.1f}" y="18">{escape(name)}</text>')
    return _svg(bottom + 44, f"{y_title} over {x_title}", parts)


def bars(values: Sequence[Bar]) -> str:
    """Horizontal bars with their values."""
    left, height, longest = 150, 26, max(bar.value for bar in values)
    parts = []
    for number, bar in enumerate(values):
        y, width = number * height, (WIDTH - left - 60) * bar.value / longest
        parts.append(f'<text x="{left - 10}" y="{y + 17}" text-anchor="end">{escape(bar.label)}</text>')
        parts.append(
            f'<rect x="{left}" y="{y + 4}" width="{width:.1f}" height="{height - 8}" rx="3" fill="var(--{bar.colour})"/>'
        )
        parts.append(f'<text class="value" x="{left + width + 8:.1f}" y="{y + 17}">{bar.value:.2f}</text>')
    return _svg(len(values) * height, "; ".join(f"{bar.label}: {bar.value:.2f}" for bar in values), parts)


def _marks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to at least ``high``, about five of them."""
    rough = max(high - low, 1e-9) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough)
    return [low + step * number for number in range(math.ceil((high - low) / step - 1e-9) + 1)]


def _svg(height: float, label: str, parts: list[str]) -> str:
    body = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">{body}</svg>'
