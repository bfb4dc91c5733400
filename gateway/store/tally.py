"""What each layer holds and what it has lost, counted as it happens: no question about sizes has to read the layers themselves.

The small tables (tally, sources, ends) decide what is dropped and where reading goes on, so each of their rows carries a checksum.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import orjson

from gateway.errors import CorruptStoreError

LayerName = Literal["raw", "features", "results"]

_STORED: Mapping[LayerName, tuple[str, str]] = {
    "raw": (
        "count(*), sum(count), sum(length(data))",
        "raw JOIN source ON source.id = raw.source WHERE source.name = ?",
    ),
    "features": (
        "count(*), sum(count), sum(length(data))",
        "feature JOIN ends ON ends.id = end_id WHERE ends.name = ?",
    ),
    "results": ("count(*), count(*), sum(length(inputs) + length(outputs))", "result WHERE model = ?"),
}


class Amounts(NamedTuple):
    """Of one source, end or model: entries are samples, rows or results; bytes are of stored blocks."""

    blocks: int = 0
    entries: int = 0
    bytes: int = 0
    dropped_blocks: int = 0
    dropped_entries: int = 0
    dropped_bytes: int = 0
    unprepared: int = 0
    """Samples among the dropped ones that no feature had been made of."""
    damaged_blocks: int = 0
    damaged_entries: int = 0

    def plus(self, other: Amounts) -> Amounts:
        """The sum, number by number."""
        return Amounts(*(a + b for a, b in zip(self, other, strict=True)))

    def dropped(self) -> Amounts:
        """The change that dropping what this holds makes."""
        return Amounts(-self.blocks, -self.entries, -self.bytes, self.blocks, self.entries, self.bytes)


def guard(*columns: object) -> int:
    """Checksum of a row of a small table."""
    return zlib.crc32(orjson.dumps(columns))


def verify(table: str, columns: Sequence[object], crc: object) -> None:
    """Raises CorruptStoreError where a row of a small table is not what was written."""
    if guard(*columns) != crc:
        raise CorruptStoreError("FF-STORE-008", f"a row of table {table} is damaged: {columns!r:.200}")


def change(db: sqlite3.Connection, layer: LayerName, name: str, by: Amounts) -> None:
    """Count a change that is made in this very transaction, after it was made."""
    row = db.execute("SELECT amounts, crc FROM tally WHERE layer = ? AND name = ?", (layer, name)).fetchone()
    found = Amounts() if row is None else _read(layer, name, *row)
    put(db, layer, name, found.plus(by))


def damaged(db: sqlite3.Connection, layer: LayerName, name: str, entries: int) -> None:
    """Count a block that was set aside just now; what is left is counted anew, since a damaged row may have said anything."""
    said = amounts(db, layer).get(name, Amounts())
    held = counted(db, layer, name)
    put(db, layer, name, Amounts(*held[:3], *said[3:7], said.damaged_blocks + 1, said.damaged_entries + entries))


def put(db: sqlite3.Connection, layer: str, name: str, amounts: Amounts) -> None:
    """Write a row of the tally."""
    text = json.dumps(amounts)
    db.execute("INSERT OR REPLACE INTO tally VALUES (?, ?, ?, ?)", (layer, name, text, guard(layer, name, text)))


def amounts(db: sqlite3.Connection, layer: LayerName) -> dict[str, Amounts]:
    """What is counted of each source, end or model."""
    rows = db.execute("SELECT name, amounts, crc FROM tally WHERE layer = ?", (layer,)).fetchall()
    return {name: _read(layer, name, text, crc) for name, text, crc in rows}


def counted(db: sqlite3.Connection, layer: LayerName, name: str) -> Amounts:
    """Count what is there by looking at every block."""
    what, where = _STORED[layer]
    return Amounts(*(number or 0 for number in db.execute(f"SELECT {what} FROM {where}", (name,)).fetchone()))  # noqa: S608


def schema(version: int) -> str:
    """The statement that says, guarded, what the file's header says unguarded: the version of the schema."""
    text = json.dumps(Amounts(version))
    return f"INSERT INTO tally VALUES ('', 'schema', '{text}', {guard('', 'schema', text)});"  # noqa: S608 - nothing foreign in it


def said_schema(db: sqlite3.Connection) -> int | None:
    """The version of the schema that `schema` wrote; None where that cannot be read."""
    try:
        row = db.execute("SELECT amounts, crc FROM tally WHERE layer = '' AND name = 'schema'").fetchone()
        return None if row is None else _read("", "schema", *row).blocks
    except (sqlite3.Error, CorruptStoreError):
        return None


def merged(db: sqlite3.Connection) -> int:
    """How many windows of raw blocks have been merged."""
    row = db.execute("SELECT amounts, crc FROM tally WHERE layer = '' AND name = 'merged'").fetchone()
    return 0 if row is None else _read("", "merged", *row).blocks


def set_merged(db: sqlite3.Connection, windows: int) -> None:
    """Remember it."""
    put(db, "", "merged", Amounts(windows))


def count_all(db: sqlite3.Connection) -> None:
    """Begin counting with what is there."""
    names: Mapping[LayerName, str] = {
        "raw": "SELECT name FROM source",
        "features": "SELECT name FROM ends",
        "results": "SELECT DISTINCT model FROM result",
    }
    for layer, query in names.items():
        for (name,) in db.execute(query).fetchall():
            put(db, layer, name, counted(db, layer, name))


def number_from(db: sqlite3.Connection, table: str, last: int) -> None:
    """Let the next row of a table have a number higher than ``last``."""
    db.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
    db.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", (table, last))


def _read(layer: str, name: str, text: str, crc: int) -> Amounts:
    verify("tally", (layer, name, text), crc)
    return Amounts(*json.loads(text))
