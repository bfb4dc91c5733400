"""Values as they came become numbers in the field's unit (clause 9.3.4c); what cannot is missing, never a zero."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from connectors.contract import Quality, Value
from gateway.blocks import Kind, SampleBlock
from gateway.config import ClusterField
from gateway.pipeline.units import Line


def convert(
    block: SampleBlock, chosen: NDArray[np.intp], field: ClusterField, line: Line, *, names: bool
) -> tuple[NDArray[np.float64], dict[str, int]]:
    """Values [n] of the chosen samples in the field's unit, NaN where missing, and how many were rejected by which rule.

    ``bad``: bad quality, no value, not finite. ``type``: no number, or none of the field's categories. With ``names`` (a group field)
    a text that is no number becomes a number of its own.
    """
    kind = block.kind[chosen]
    values = block.number[chosen]
    bad = (block.quality[chosen] == Quality.BAD) | (kind == Kind.NONE)
    textual = kind == Kind.TEXT
    bad |= ~np.isfinite(values) & ~textual
    if field.categories:
        codes = {text: float(code) for code, text in enumerate(field.categories)}
        values = _each(block, chosen, codes, ~bad)
    elif textual.any():
        values = np.where(textual, _each(block, chosen, None, textual & ~bad, names=names), values)
    wrong = np.isnan(values) & ~bad
    values = np.where(bad, np.nan, values)
    if line != (1.0, 0.0):
        values = values * line.scale + line.offset
    return values, {"bad": int(bad.sum()), "type": int(wrong.sum())}


def _each(
    block: SampleBlock,
    chosen: NDArray[np.intp],
    codes: Mapping[str, float] | None,
    wanted: NDArray[np.bool_],
    *,
    names: bool = False,
) -> NDArray[np.float64]:
    """One by one: the code of the value's text, or the number it spells, or the number of a name; NaN where there is none."""
    values = np.full(len(chosen), np.nan)
    for i in np.flatnonzero(wanted):
        text = _text(block.value(int(chosen[i])))
        if codes is not None:
            values[i] = codes.get(text, np.nan)
            continue
        with suppress(ValueError):
            values[i] = float(text)
        if names and not np.isfinite(values[i]):
            values[i] = _number_of(text)
    return np.where(np.isfinite(values), values, np.nan)


def _text(value: Value) -> str:
    """How a category is written in the configuration: ``true``, ``3``, ``2.5``, ``ok``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _number_of(name: str) -> float:
    """A number for a name, the same everywhere and always; 52 bits, so that a float holds it exactly."""
    return float(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 12)
