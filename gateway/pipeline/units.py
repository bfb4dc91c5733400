"""Units a plant uses, and the straight line between two of one dimension. Exact by definition (SI brochure, NIST SP 811)."""

from __future__ import annotations

from typing import NamedTuple


class Line(NamedTuple):
    """``scale * value + offset`` is the value in the other unit."""

    scale: float
    offset: float


# Each unit: how many base units it is, and the base value at its zero. The first of each row is the base.
_DIMENSIONS: tuple[dict[str, tuple[float, float]], ...] = (
    {
        "K": (1, 0),
        "degC": (1, 273.15),
        "°C": (1, 273.15),
        "degF": (5 / 9, 459.67 * 5 / 9),
        "°F": (5 / 9, 459.67 * 5 / 9),
    },
    {
        "m": (1, 0),
        "cm": (1e-2, 0),
        "mm": (1e-3, 0),
        "um": (1e-6, 0),
        "µm": (1e-6, 0),
        "in": (0.0254, 0),
        "ft": (0.3048, 0),
    },
    {
        "m/s": (1, 0),
        "mm/s": (1e-3, 0),
        "in/s": (0.0254, 0),
        "m/min": (1 / 60, 0),
        "mm/min": (1e-3 / 60, 0),
        "km/h": (1 / 3.6, 0),
    },
    {"m/s2": (1, 0), "m/s²": (1, 0), "mm/s2": (1e-3, 0), "gn": (9.80665, 0)},
    {
        "Pa": (1, 0),
        "hPa": (1e2, 0),
        "kPa": (1e3, 0),
        "MPa": (1e6, 0),
        "mbar": (1e2, 0),
        "bar": (1e5, 0),
        "psi": (6894.757293168361, 0),
        "atm": (101325, 0),
    },
    {"Hz": (1, 0), "kHz": (1e3, 0), "1/s": (1, 0), "rpm": (1 / 60, 0), "1/min": (1 / 60, 0)},
    {"s": (1, 0), "ms": (1e-3, 0), "us": (1e-6, 0), "min": (60, 0), "h": (3600, 0), "d": (86400, 0)},
    {"A": (1, 0), "mA": (1e-3, 0), "kA": (1e3, 0)},
    {"V": (1, 0), "mV": (1e-3, 0), "kV": (1e3, 0)},
    {"W": (1, 0), "mW": (1e-3, 0), "kW": (1e3, 0), "MW": (1e6, 0)},
    {"J": (1, 0), "kJ": (1e3, 0), "MJ": (1e6, 0), "Wh": (3600, 0), "kWh": (3.6e6, 0)},
    {"kg": (1, 0), "g": (1e-3, 0), "mg": (1e-6, 0), "t": (1e3, 0), "lb": (0.45359237, 0)},
    {"N": (1, 0), "kN": (1e3, 0), "lbf": (4.4482216152605, 0)},
    {"Nm": (1, 0), "N.m": (1, 0), "N·m": (1, 0), "kNm": (1e3, 0)},
    {"m3": (1, 0), "m³": (1, 0), "l": (1e-3, 0), "ml": (1e-6, 0)},
    {"m3/s": (1, 0), "m3/h": (1 / 3600, 0), "m³/h": (1 / 3600, 0), "l/s": (1e-3, 0), "l/min": (1e-3 / 60, 0)},
    {"rad": (1, 0), "deg": (3.141592653589793 / 180, 0)},
    {"1": (1, 0), "%": (1e-2, 0), "ppm": (1e-6, 0)},
)
_UNITS = {unit: (number, *line) for number, row in enumerate(_DIMENSIONS) for unit, line in row.items()}


def conversion(unit: str, to: str) -> Line | None:
    """How to get from one unit to another; None if that cannot be. A unit that is not in the table converts to itself only."""
    if unit == to:
        return Line(1.0, 0.0)
    if unit not in _UNITS or to not in _UNITS:
        return None
    dimension, scale, zero = _UNITS[unit]
    other, to_scale, to_zero = _UNITS[to]
    return Line(scale / to_scale, (zero - to_zero) / to_scale) if dimension == other else None


def known() -> tuple[str, ...]:
    """All units of the table, dimension by dimension."""
    return tuple(_UNITS)
