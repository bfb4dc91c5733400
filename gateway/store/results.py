"""The results layer: every prediction that was given, one row each."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import orjson

from gateway.store import tally
from gateway.store.damage import Finder, Lost
from gateway.store.file import File
from gateway.store.records import Result
from gateway.store.tally import Amounts, guard

_PAGE = 1000

_COLUMNS = "time, model, version, end_name, inputs, outputs, crc"


class ResultLayer:
    """Methods may be called from any thread; all raise StoreError."""

    def __init__(self, file: File, finder: Finder) -> None:
        self._file = file
        self._finder = finder

    def append(self, results: Sequence[Result]) -> None:
        """Keep predictions that were given; numpy arrays among the outputs become lists.

        As one statement over one JSON text: row by row, each row would take the interpreter from whoever answers requests meanwhile.
        """
        rows = [_columns(result) for result in results]
        sizes: dict[str, list[int]] = defaultdict(list)
        for _, model, _, _, inputs, outputs, _ in rows:
            sizes[model].append(len(inputs) + len(outputs))
        batch = orjson.dumps(rows).decode()
        columns = ", ".join(f"value ->> {number}" for number in range(7))

        def work(db: sqlite3.Connection) -> None:
            db.execute(f"INSERT INTO result ({_COLUMNS}) SELECT {columns} FROM json_each(?)", (batch,))  # noqa: S608
            for model, each in sizes.items():
                tally.change(db, "results", model, Amounts(len(each), len(each), sum(each)))

        self._file.write(work)

    def since(self, time: int, end: str | None, limit: int) -> list[Result]:
        """Predictions given since a time, oldest first."""
        pages = self.pages(time, 2**63 - 1, end, min(limit, _PAGE))
        return list(islice((result for page in pages for result in page), limit))

    def pages(self, since: int, until: int, end: str | None, rows: int = _PAGE) -> Iterator[list[Result]]:
        """Predictions with ``since <= time < until``, oldest first, so many at a time. Damaged ones are left out and set aside."""
        query = (
            f"SELECT id, {_COLUMNS} FROM result WHERE (time, id) > (?, ?) AND time < ?"  # noqa: S608
            " AND (? IS NULL OR end_name = ?) ORDER BY time, id LIMIT ?"
        )
        after = (since, -1)
        while True:
            parameters = (*after, until, end, end, rows)
            page = self._file.read(lambda db, parameters=parameters: db.execute(query, parameters).fetchall())  # type: ignore[misc]
            if not page:
                return
            yield [_result(row[1:]) for row in page if self._sound(row)]
            after = page[-1][1], page[-1][0]

    def verify(self) -> list[str]:
        """Look at every row; gives what is wrong with each damaged one."""
        query, after, wrong = f"SELECT id, {_COLUMNS} FROM result WHERE id > ? ORDER BY id LIMIT ?", 0, []  # noqa: S608
        while page := self._file.read(lambda db, after=after: db.execute(query, (after, _PAGE)).fetchall()):  # type: ignore[misc]
            wrong += [f"result {row[0]} of {row[2]}: its checksum does not fit" for row in page if not self._sound(row)]
            after = page[-1][0]
        return wrong

    def drop(self, need: int, before: int, rows: int) -> Amounts:
        """Drop the oldest: until ``need`` bytes are free, and those given before ``before``; at most ``rows`` in one go."""

        def work(db: sqlite3.Connection) -> Amounts:
            oldest = "SELECT id, model, time, length(inputs) + length(outputs) FROM result ORDER BY id LIMIT ?"
            changes: dict[str, Amounts] = defaultdict(Amounts)
            freed, last = 0, None
            for number, model, time, size in db.execute(oldest, (rows,)):
                if freed >= need and time >= before:
                    break
                changes[model] = changes[model].plus(Amounts(1, 1, size).dropped())
                freed, last = freed + size, number
            if last is not None:
                db.execute("DELETE FROM result WHERE id <= ?", (last,))
            total = Amounts()
            for model, change in changes.items():
                tally.change(db, "results", model, change)
                total = total.plus(change)
            return total

        return self._file.write(work)

    def _sound(self, row: tuple[Any, ...]) -> bool:
        """Whether a row (number, then its columns) is what was written; else it is set aside."""
        number, *columns, crc = row
        if guard(*columns) == crc:
            return True
        lost = Lost(number, 1, repr(columns).encode())
        self._finder.set_aside("results", str(columns[1]), lost, "its checksum does not fit")
        return False

    def oldest(self) -> int | None:
        """When the oldest was given."""
        row = self._file.read(lambda db: db.execute("SELECT time FROM result ORDER BY id LIMIT 1").fetchone())
        return None if row is None else int(row[0])


def _columns(result: Result) -> tuple[int, str, str, str, str, str, int]:
    outputs = orjson.dumps(result.outputs, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    columns = (result.time, result.model, result.version, result.end, result.inputs, outputs)
    return *columns, guard(*columns)


def _result(row: tuple[Any, ...]) -> Result:
    time, model, version, end, inputs, outputs, _ = row
    return Result(time, model, version, end, inputs, json.loads(outputs))
