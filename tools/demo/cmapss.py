"""C-MAPSS files: NASA's text files, and training files that somebody min-max scaled, brought back to the units of the test file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from tools.errors import ToolError

SENSORS = (2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21)
"""The sensors that are not constant in the subsets with one operating condition (FD001, FD003)."""
NEW_CYCLES = 20
"""The first cycles of an engine, in which it is taken to be new."""

_HINT = "put train_FDnnn.txt (or .parquet), test_FDnnn.txt and RUL_FDnnn.txt into the folder cmapss of FEDFAB_DATA"

Table = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Subset:
    """One subset in raw units."""

    train: Table
    """Engine, cycle, then `SENSORS`; run to failure. Shape (n, 2 + 14)."""
    test: Table
    """The same, broken off some time before the failure."""
    remaining: NDArray[np.float64]
    """Cycles that remain after the last row of each test engine, in order of their numbers."""
    about: str
    """What was done to the data beyond reading it; empty: nothing."""


def load(folder: Path, subset: str) -> Subset:
    """A subset such as FD001 from a folder; file names in upper or lower case.

    Raises ToolError FF-DEMO-004 where a file is absent, FF-DEMO-005 where it is not what its name says.
    """
    test_file, rul_file = _find(folder, f"test_{subset}", ".txt"), _find(folder, f"RUL_{subset}", ".txt")
    train_file = _find(folder, f"train_{subset}", ".txt", ".parquet")
    test, remaining = _text(test_file, 26), _text(rul_file, 1)[:, 0]
    if len(remaining) != len(np.unique(test[:, 0])):
        raise _unusable(
            rul_file, f"{len(remaining)} lines for the {len(np.unique(test[:, 0]))} engines of {test_file.name}"
        )
    if train_file.suffix == ".txt":
        return Subset(_chosen(_text(train_file, 26)), _chosen(test), remaining, "")
    train = np.column_stack(_columns(train_file))
    steps = _quantum(test_file)
    for column, sensor in enumerate(SENSORS, start=2):
        train[:, column] = unscaled(train[:, :2], train[:, column], test[:, :2], test[:, 4 + sensor], steps[4 + sensor])
    about = (
        f"The training file is min-max scaled: each sensor's range was recovered from the step between its scaled values, "
        f"its offset from the level of the first {NEW_CYCLES} cycles of the engines in both files."
    )
    return Subset(train, _chosen(test), remaining, about)


def unscaled(
    train: Table, scaled: NDArray[np.float64], test: Table, raw: NDArray[np.float64], step: float
) -> NDArray[np.float64]:
    """Min-max scaled values (n,) in the units of ``raw``, without any label.

    ``train`` and ``test`` hold engine and cycle of the rows. Raw values are multiples of ``step``, so scaled ones are multiples of
    step / range: the smallest distance between two of them gives the range. The offset is the one at which new engines stand at the
    same level in both files. Limits: neighbouring values must occur (they do in thousands of rows), and new engines of both files
    must be alike, so the offset is known to a fraction of the spread of new engines, not to the last digit.
    """
    distances = np.diff(np.unique(scaled))
    width = round(1 / distances[distances > 1e-9].min()) * step
    level = np.mean(raw[test[:, 1] <= NEW_CYCLES]) - width * np.mean(scaled[train[:, 1] <= NEW_CYCLES])
    raised: NDArray[np.float64] = scaled * width + np.round(level / step) * step
    return raised


def _chosen(table: Table) -> Table:
    chosen: Table = table[:, [0, 1, *(4 + sensor for sensor in SENSORS)]]
    return chosen


def _columns(path: Path) -> list[NDArray[np.float64]]:
    names = ("id", "cycle", *(f"s{sensor}" for sensor in SENSORS))
    try:
        found = duckdb.read_parquet(str(path)).fetchnumpy()
        return [found[name].astype(np.float64) for name in names]
    except (duckdb.Error, KeyError) as error:
        raise _unusable(path, f"expected the columns {', '.join(names)}: {error}") from error


def _text(path: Path, columns: int) -> Table:
    try:
        table = np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise _unusable(path, str(error)) from error
    if table.shape[1] != columns:
        raise _unusable(path, f"expected {columns} numbers in a line, got {table.shape[1]}")
    return table


def _quantum(path: Path) -> list[float]:
    """The last digit of each column of a text file."""
    cells = np.loadtxt(path, dtype=str)
    return [10.0 ** -max(len(cell.partition(".")[2]) for cell in column) for column in cells.T]


def _find(folder: Path, stem: str, *suffixes: str) -> Path:
    if not folder.is_dir():
        raise ToolError("FF-DEMO-004", f"there is no folder {folder}", hint=f"set FEDFAB_DATA; {_HINT}")
    for suffix in suffixes:
        for path in folder.iterdir():
            if path.name.lower() == (stem + suffix).lower():
                return path
    wanted = " or ".join(stem + suffix for suffix in suffixes)
    raise ToolError("FF-DEMO-004", f"there is no {wanted} in {folder}", hint=_HINT)


def _unusable(path: Path, problem: str) -> ToolError:
    return ToolError("FF-DEMO-005", f"{path}: not the C-MAPSS file its name promises: {problem}", hint=_HINT)
