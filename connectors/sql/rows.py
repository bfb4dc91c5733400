"""From rows to samples, and a cursor to text and back. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal, InvalidOperation
from uuid import UUID
from zoneinfo import ZoneInfo

from connectors.contract import Quality, Sample, Value
from connectors.errors import ConnectorConfigError
from connectors.sql.config import SqlConfig

Cursor = int | float | str | Decimal | datetime | date
Row = Sequence[object]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_READERS: dict[str, Callable[[str], Cursor]] = {
    "int": int,
    "float": float,
    "str": str,
    "Decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
}


class Rows:
    """Turns rows, whose columns are ``config.columns()``, into samples: one snapshot for each row."""

    def __init__(self, config: SqlConfig) -> None:
        columns = config.columns()
        self._config = config
        self._zone = ZoneInfo(config.timezone) if config.timezone else None
        self._time = columns.index(config.time) if config.time else None
        self._tags = [(tag.name, columns.index(tag.column), tag.text) for tag in config.tag]

    def samples(self, rows: Sequence[Row], now: int) -> list[Sample]:
        """All tags of all rows, read at ``now`` (ns).

        NULL is None of quality UNCERTAIN: the database answered, and says that there is no value. A row whose time is NULL or
        cannot be understood gets ``now``, and its values are UNCERTAIN. Raises ConnectorConfigError for a time without a zone.
        """
        samples: list[Sample] = []
        for row in rows:
            known = None if self._time is None else self._nanoseconds(row[self._time])
            time = now if known is None else known
            best = Quality.UNCERTAIN if known is None and self._time is not None else Quality.GOOD
            for name, column, text in self._tags:
                cell = row[column]
                value = _plain(cell)
                if value is None:
                    quality = Quality.UNCERTAIN if cell is None or cell != cell else Quality.BAD  # noqa: PLR0124  NaN
                    samples.append(Sample(name, None, quality, time, now))
                else:
                    samples.append(Sample(name, str(cell) if text else value, best, time, now))
        return samples

    def _nanoseconds(self, time: object) -> int | None:
        """Since the epoch, UTC; None where it cannot be understood."""
        if isinstance(time, str):
            try:
                time = datetime.fromisoformat(time)
            except ValueError:
                return None
        if isinstance(time, datetime):
            since = self._aware(time) - _EPOCH
            return (since.days * 86400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000
        if isinstance(time, date):
            return self._nanoseconds(datetime(time.year, time.month, time.day))
        if isinstance(time, int | float | Decimal):
            try:
                return round(time * _NANOSECONDS[self._config.time_unit])
            except (ValueError, OverflowError, InvalidOperation):
                return None
        return None

    def _aware(self, time: datetime) -> datetime:
        if time.tzinfo is not None:
            return time
        if self._zone is None:
            raise ConnectorConfigError(
                "FF-SQL-004",
                f'source {self._config.name}: the times in column "{self._config.time}" say no zone, e.g. {time}',
                hint='say which they are in: timezone = "Asia/Shanghai" (or "UTC")',
            )
        return time.replace(tzinfo=self._zone)


def to_text(cursor: object) -> str:
    """A cursor as it is stored: its type and its value. Raises TypeError for what cannot be ordered and stored."""
    kind = type(cursor).__name__
    if kind not in _READERS:
        raise TypeError(kind)
    text = cursor.isoformat() if isinstance(cursor, date) else str(cursor)
    return json.dumps([kind, text])


def from_text(text: str) -> Cursor:
    """The cursor `to_text` made. Raises ValueError for anything else."""
    try:
        kind, value = json.loads(text)
        return _READERS[kind](value)
    except (KeyError, TypeError, InvalidOperation) as error:
        raise ValueError(f"not a cursor: {text}") from error


def whole_ties(rows: Sequence[Row], batch: int) -> Sequence[Row]:
    """The first rows of ``rows`` that fit into ``batch`` and end where the cursor (column 0) changes.

    ``rows`` holds one more than ``batch`` where there are more. Empty when more than ``batch`` rows share the first cursor.
    """
    if len(rows) <= batch:
        return rows
    end = batch
    while end > 0 and rows[end - 1][0] == rows[batch][0]:
        end -= 1
    return rows[:end]


def _plain(cell: object) -> Value:  # noqa: PLR0911  one line for each kind of value
    if isinstance(cell, float):
        return None if cell != cell else cell  # noqa: PLR0124  NaN
    if isinstance(cell, int | str):
        return cell
    if isinstance(cell, Decimal):
        return None if cell.is_nan() else float(cell)
    if isinstance(cell, datetime | date | time_of_day):
        return cell.isoformat()
    if isinstance(cell, timedelta):
        return cell.total_seconds()
    if isinstance(cell, UUID):
        return str(cell)
    return None
