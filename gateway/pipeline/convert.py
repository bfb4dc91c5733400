"""Values as they came become numbers in the field's unit (clause 9.3.4c); what cannot is missing, never a zero."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from connectors.contract import Quality, Value
from gateway.blocks import Kind, SampleBlock
from gateway.config import ClusterField
from gateway.pipeline.units import Line

_TEXT, _NONE, _BAD = int(Kind.TEXT), int(Kind.NONE), int(Quality.BAD)


@dataclass(frozen=True, slots=True)
class Conversion:
    """How the values of each field of each end become numbers."""

    width: int
    """Fields of the cluster."""
    scale: NDArray[np.float64]
    offset: NDArray[np.float64]
    codes: Mapping[int, Mapping[str, float]]
    """The code of each category, for fields that have categories."""
    group: int | None
    """The field in which a text that is no number is a name, and becomes a number of its own."""

    @classmethod
    def of(cls, fields: Sequence[ClusterField], lines: Sequence[Mapping[str, Line]], group: str | None) -> Conversion:
        """For these fields, with the line that leads from each tag's unit to the field's, end by end."""
        codes = {
            number: {text: float(code) for code, text in enumerate(field.categories)}
            for number, field in enumerate(fields)
            if field.categories
        }
        return cls(
            width=len(fields),
            scale=np.array([each[field.name].scale for each in lines for field in fields]),
            offset=np.array([each[field.name].offset for each in lines for field in fields]),
            codes=codes,
            group=next((number for number, field in enumerate(fields) if field.name == group), None),
        )

    def values(
        self, block: SampleBlock, chosen: NDArray[np.int64], field: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Values [n] of the chosen samples in their fields' units, NaN where missing; and which are missing because they are bad
        (of bad quality, without a value, not finite), and which because of their type (no number, no known category)."""
        values = block.number[chosen]
        textual = block.kind[chosen] == _TEXT
        bad = (block.quality[chosen] == _BAD) | (block.kind[chosen] == _NONE) | ~(np.isfinite(values) | textual)
        singly = textual
        if self.codes:
            singly = textual | np.isin(field % self.width, list(self.codes))
        for i in np.flatnonzero(singly & ~bad):
            values[i] = self._single(block.value(int(chosen[i])), int(field[i] % self.width))
        wrong = np.isnan(values) & ~bad
        values[bad] = np.nan
        return values * self.scale[field] + self.offset[field], bad, wrong

    def _single(self, value: Value, field: int) -> float:
        text = _text(value)
        if field in self.codes:
            return self.codes[field].get(text, np.nan)
        with suppress(ValueError):
            if np.isfinite(number := float(text)):
                return number
        return _number_of(text) if field == self.group else np.nan


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
