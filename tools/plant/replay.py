"""Recorded machines: the rows of a table, in its order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from tools.errors import ToolError
from tools.plant.physics import COUNTERS, Row


@dataclass(frozen=True, slots=True)
class Recording:
    """One machine's table."""

    fields: tuple[str, ...]
    counters: NDArray[np.int64]
    """Run and cycle, shape (n, 2)."""
    values: NDArray[np.float64]
    """Shape (n, fields)."""

    def rows(self) -> Iterator[Row]:
        """Every row once, in the order of the file."""
        for (run, cycle), values in zip(self.counters.tolist(), self.values.tolist(), strict=True):
            yield Row(run, cycle, tuple(values))


def read(path: Path) -> Recording:
    """The recording in a CSV file with a header, or a Parquet file.

    Raises ToolError FF-PLANT-001 where it cannot be read, lacks ``run`` or ``cycle``, or holds anything but numbers.
    """
    reader = duckdb.read_parquet if path.suffix == ".parquet" else duckdb.read_csv
    try:
        columns = reader(str(path)).fetchnumpy()
        fields = tuple(name for name in columns if name not in COUNTERS)
        counters = np.column_stack([columns[name].astype(np.int64) for name in COUNTERS])
        values = np.column_stack([columns[name].astype(np.float64) for name in fields])
    except (duckdb.Error, KeyError, ValueError, TypeError) as error:
        raise ToolError(
            "FF-PLANT-001",
            f"{path}: no recording: {error}",
            hint="expected a CSV file with a header or a Parquet file, with columns run, cycle and one number per field",
        ) from error
    return Recording(fields, counters, values)
