"""What is found in a damaged store file, row by row, in whatever order its pages lie, and carried into a new one."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from pathlib import Path

from gateway.store import pages, tally
from gateway.store.records import Stored
from gateway.store.tally import Amounts, LayerName, guard

_GAP = 1024
"""Numbers left out behind the highest one found: a number that may have been given is not given again."""


class Ruins:
    """Every row is judged by itself: blocks by their checksum, rows of small tables by theirs."""

    def __init__(self) -> None:
        self._sources: dict[str, int] = {}
        self._cursors: dict[str, str | None] = {}
        self._newest: dict[str, tuple[int, str]] = {}
        self._ends: dict[int, str] = {}
        self._features: list[tuple[int, int, str]] = []
        self._said: dict[tuple[str, str], Amounts] = {}
        self._highest: dict[str, int] = defaultdict(int)
        self._lost: dict[str, dict[str, int]] = {}
        self._kept: dict[str, int] = {}

    def carry(self, path: Path, db: sqlite3.Connection) -> None:
        """Carry everything that can be read into ``db``, an empty store in a transaction."""
        for row in pages.rows(path):
            self._take(db, row)
        for name, number in self._sources.items():
            cursor = self._cursors[name] if name in self._cursors else self._newest.get(name, (0, None))[1]
            db.execute("INSERT INTO source VALUES (?, ?, ?, ?)", (number, name, cursor, guard(number, name, cursor)))
        strays = [
            (number,) for number, end_id, name in self._features if self._ends.get(end_id, "").partition("@")[0] != name
        ]
        db.executemany("DELETE FROM feature WHERE id = ?", strays)
        for table in ("raw", "feature", "result"):
            tally.number_from(db, table, self._highest[table] + _GAP)
        tally.count_all(db)
        self._account(db)

    def summary(self) -> dict[str, object]:
        """For the log: entries carried over in each layer, and how many were lost, as far as that is known."""
        return {**self._kept, "lost": {layer: names for layer, names in self._lost.items() if names}}

    def _take(self, db: sqlite3.Connection, row: pages.Row) -> None:
        match row.number, row.columns:
            case int(number), (None, int(), int(), str() | None, int(), int(), int(), int(), bytes()):
                self._raw(db, number, row.columns)
            case int(number), (None, int(), int(), int(), int(), int(), int(), int(), bytes()):
                self._feature(db, number, row.columns)
            case int(number), (None, str(name), (str() | None) as cursor, int(crc)) if (
                guard(number, name, cursor) == crc
            ):
                self._cursors[name] = cursor
                self._source(name)
            case int(number), (None, str(name), str(), str(), int() | None, int(upto), str(), int(crc)):
                if guard(number, *row.columns[1:7]) == crc:
                    db.execute(
                        "INSERT OR REPLACE INTO ends VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (number, *row.columns[1:])
                    )
                    self._ends[number] = name
                    self._highest["raw"] = max(self._highest["raw"], upto)
            case int(number), (None, int(), str(), str(), str(), str(), str(), int(crc)) if (
                guard(*row.columns[1:7]) == crc
            ):
                db.execute("INSERT OR IGNORE INTO result VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (number, *row.columns[1:]))
                self._highest["result"] = max(self._highest["result"], number)
            case None, (str(layer), str(name), str(text), int(crc)) if guard(layer, name, text) == crc:
                self._said[layer, name] = Amounts(*json.loads(text))
            case int(), (None, str(), str(), int(), int(), str(), int(), bytes() | None):
                db.execute("INSERT INTO damaged VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row.columns)
            case int(), (str(table), int(last)) if table in ("raw", "feature", "result") and last < 2**48:
                self._highest[table] = max(self._highest[table], last)

    def _raw(self, db: sqlite3.Connection, number: int, columns: tuple[pages.Value, ...]) -> None:
        stored = Stored("raw", number, *columns[6:])  # type: ignore[arg-type]
        if stored.problem() is not None or stored.header.source is None:
            return
        header = stored.header
        parts = json.dumps(header.parts, separators=(",", ":")) if header.parts else None
        row = (number, self._source(header.source or ""), columns[2], parts, header.first, header.last, *columns[6:])
        db.execute("INSERT OR IGNORE INTO raw VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        self._highest["raw"] = max(self._highest["raw"], number)
        if header.cursor is not None and number > self._newest.get(header.source or "", (0, ""))[0]:
            self._newest[header.source or ""] = number, header.cursor

    def _feature(self, db: sqlite3.Connection, number: int, columns: tuple[pages.Value, ...]) -> None:
        stored = Stored("features", number, *columns[6:])  # type: ignore[arg-type]
        if stored.problem() is not None or stored.header.end is None:
            return
        row = (number, *columns[1:4], stored.header.first, stored.header.last, *columns[6:])
        db.execute("INSERT OR IGNORE INTO feature VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        self._features.append((number, columns[1], stored.header.end))  # type: ignore[arg-type]
        self._highest["feature"] = max(self._highest["feature"], number)

    def _source(self, name: str) -> int:
        return self._sources.setdefault(name, len(self._sources) + 1)

    def _account(self, db: sqlite3.Connection) -> None:
        """Go on with what was dropped before, and count as damaged what was said to be there and is not."""
        layers: tuple[LayerName, ...] = ("raw", "features", "results")
        for layer in layers:
            found = tally.amounts(db, layer)
            said = {name: amounts for (of, name), amounts in self._said.items() if of == layer}
            self._kept[layer] = sum(held.entries for held in found.values())
            self._lost[layer] = {}
            for name in found.keys() | said.keys():
                before, now = said.get(name, Amounts()), found.get(name, Amounts())
                lost = max(0, before.entries - now.entries)
                blocks = max(0, before.blocks - now.blocks)
                damaged = (before.damaged_blocks + blocks, before.damaged_entries + lost)
                tally.put(db, layer, name, Amounts(*now[:3], *before[3:7], *damaged))
                if lost:
                    self._lost[layer][name] = lost
