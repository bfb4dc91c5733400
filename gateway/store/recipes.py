"""What the rows of each end are made with: the recipe in use, and those set aside because their rows cannot be made again."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from gateway.errors import StoreError
from gateway.store import tally
from gateway.store.labels import Labelling
from gateway.store.records import Outlook, Recipe
from gateway.store.tally import Amounts, guard, verify

Row = tuple[int, str, str, str, int | None, int, str]
"""Of the table ends: id, name, digest, recipe, retired, upto, state."""


def _row(found: tuple[Any, ...] | None) -> Row | None:
    if found is None:
        return None
    verify("ends", found[:7], found[7])
    return found[0], found[1], found[2], found[3], found[4], found[5], found[6]


def put(db: sqlite3.Connection, row: Row) -> None:
    """Write a row of the table, with its checksum."""
    db.execute("INSERT OR REPLACE INTO ends VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, guard(*row)))


def find(db: sqlite3.Connection, name: str) -> Row | None:
    """The row of this name. Raises CorruptStoreError where it is not what was written."""
    return _row(db.execute("SELECT * FROM ends WHERE name = ?", (name,)).fetchone())


def known(db: sqlite3.Connection, end: str) -> tuple[int, Recipe]:
    """Number and recipe of an end. Raises StoreError FF-STORE-005."""
    row = find(db, end)
    if row is None:
        raise StoreError("FF-STORE-005", f'the store knows no end "{end}"', hint="is it in the configuration?")
    recipe = json.loads(row[3])
    return row[0], Recipe(row[2], tuple(recipe["fields"]), Labelling(**recipe["labelling"]))


def first_raw(db: sqlite3.Connection) -> int:
    """The oldest raw block that features can still be made of; where there is none, the next to come."""
    (first,) = db.execute("SELECT min(id) FROM raw").fetchone()
    if first is None:
        (last,) = db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'raw'").fetchone()
        return int(last) + 1
    return int(first)


def whole_raw(db: sqlite3.Connection) -> bool:
    """Whether every sample that ever came is still in the raw layer."""
    return not any(each.dropped_blocks or each.damaged_blocks for each in tally.amounts(db, "raw").values())


def outlook(db: sqlite3.Connection, end_id: int) -> Outlook:
    """How many rows of a recipe there are, and how many of them could not be made again."""
    first = 0 if whole_raw(db) else first_raw(db)
    query = "SELECT coalesce(sum(count), 0), coalesce(sum(CASE WHEN made < ? THEN count END), 0) FROM feature WHERE end_id = ?"
    return Outlook(*db.execute(query, (first, end_id)).fetchone())


def retired_name(end: str, digest: str) -> str:
    """The name under which rows of a recipe that is no longer in use are set aside; no end has such a name."""
    return f"{end}@{digest[:12]}"


def rename(db: sqlite3.Connection, row: Row, name: str, retired: int | None) -> None:
    """Set the rows of a recipe aside, or take them back; what is counted goes along, but what was dropped stays told of the end."""
    amounts = tally.amounts(db, "features").get(row[1], Amounts())
    held = Amounts(*amounts[:3])
    tally.change(db, "features", row[1], Amounts(*(-number for number in held)))
    tally.change(db, "features", name, held)
    put(db, (row[0], name, row[2], row[3], retired, row[5], row[6]))


def remove(db: sqlite3.Connection, end: str, end_id: int) -> None:
    """Delete a recipe with its rows, which can be made again."""
    delete(db, end, "end_id = ?", (end_id,))
    db.execute("DELETE FROM ends WHERE id = ?", (end_id,))


def delete(db: sqlite3.Connection, end: str, where: str, parameters: tuple[object, ...]) -> None:
    """Delete rows that can be made again, which is no loss and not counted as one."""
    query = f"SELECT count(*), coalesce(sum(count), 0), coalesce(sum(length(data)), 0) FROM feature WHERE {where}"  # noqa: S608
    blocks, rows, size = db.execute(query, parameters).fetchone()
    db.execute(f"DELETE FROM feature WHERE {where}", parameters)  # noqa: S608
    tally.change(db, "features", end, Amounts(-blocks, -rows, -size))
