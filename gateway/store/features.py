"""The feature layer: rows of each end in the order of time, made by a recipe, with the progress of their making."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import structlog
from numpy.typing import NDArray

from gateway.blocks import FeatureBlock
from gateway.errors import StoreError
from gateway.store import codec, recipes, tally
from gateway.store.damage import Finder
from gateway.store.file import File
from gateway.store.labels import Labelling, label, labeller
from gateway.store.records import Outlook, Progress, Recipe, Stored
from gateway.store.tails import Tails
from gateway.store.tally import Amounts
from models.dataset import Rows

log = structlog.get_logger(__name__)

_MERGE = 64  # this many small blocks become one, so that an end that gives a row a second stays quick to read
_SMALL = 512  # rows; a block with fewer is small
_LARGE = 1024  # rows of a block at most, so that the newest window of an end is read without reading its history

_COLUMNS = "'features', id, count, crc, data"
_BLOCK = f"SELECT {_COLUMNS} FROM feature"  # noqa: S608 - nothing foreign in it


class FeatureLayer:
    """Methods may be called from any thread; all raise StoreError."""

    def __init__(self, file: File, finder: Finder, now: Callable[[], int]) -> None:
        self._file = file
        self._finder = finder
        self._now = now
        self._tails = Tails()

    def declare(self, end: str, recipe: Recipe) -> Progress:
        """See `Store.declare`."""

        def work(db: sqlite3.Connection) -> tuple[Progress, Outlook | None]:
            row, outlook = recipes.find(db, end), None
            if row is not None and row[2] != recipe.digest:
                outlook = recipes.outlook(db, row[0])
                if outlook.lost:
                    recipes.rename(db, row, recipes.retired_name(end, row[2]), self._now())
                else:
                    recipes.remove(db, end, row[0])
                row = None
            if row is None:
                row = recipes.find(db, recipes.retired_name(end, recipe.digest))
                if row is not None:
                    recipes.rename(db, row, end, None)
            if row is None:
                text = json.dumps({"fields": recipe.fields, "labelling": asdict(recipe.labelling)})
                (number,) = db.execute("SELECT coalesce(max(id), 0) + 1 FROM ends").fetchone()
                row = (number, end, recipe.digest, text, None, 0, "")
                recipes.put(db, row)
            return Progress(row[5], row[6]), outlook

        progress, outlook = self._file.write(work)
        self._tails.forget([end])
        if outlook is not None and outlook.lost:
            log.warning(
                "rows of an earlier recipe set aside", end=end, rows=outlook.rows, cannot_be_made_again=outlook.lost
            )
        return progress

    def outlook(self, end: str, digest: str) -> Outlook:
        """What declaring a recipe of this digest would do to the rows an end has now."""

        def work(db: sqlite3.Connection) -> Outlook:
            rows = db.execute("SELECT id FROM ends WHERE name = ? AND digest != ?", (end, digest))
            found = rows.fetchone()
            return Outlook(0, 0) if found is None else recipes.outlook(db, found[0])

        return self._file.read(work)

    def forget(self, end: str) -> None:
        """See `Store.forget_features`."""

        def work(db: sqlite3.Connection) -> None:
            row = recipes.find(db, end)
            if row is None:
                return
            if not recipes.whole_raw(db):
                first = recipes.first_raw(db)
                recipes.delete(db, end, "end_id = ? AND made >= ?", (row[0], first))
                recipes.put(db, (*row[:5], 0, ""))
            else:
                recipes.remove(db, end, row[0])

        self._file.write(work)
        self._tails.forget([end])

    def append(self, blocks: Mapping[str, FeatureBlock], upto: int) -> None:
        """Keep rows of several ends, made of raw blocks up to this number, in one transaction."""
        encoded = {
            end: [(part, codec.encode_features(part, end)) for part in _parts(block)] for end, block in blocks.items()
        }

        def work(db: sqlite3.Connection) -> None:
            for end, parts in encoded.items():
                if parts:
                    end_id = recipes.known(db, end)[0]
                    for part, data in parts:
                        _insert(db, end_id, (None, self._now(), upto), part, data)
                    change = Amounts(len(parts), len(blocks[end]), sum(len(data) for _, data in parts))
                    fewer = _merge(db, end_id, end)
                    tally.change(db, "features", end, change.plus(fewer))

        self._file.write(work)
        self._tails.append(blocks)

    def save_progress(self, progress: Mapping[str, Progress]) -> None:
        """Keep how far each of these ends has come."""

        def work(db: sqlite3.Connection) -> None:
            for end, step in progress.items():
                row = recipes.find(db, end)
                if row is not None:
                    recipes.put(db, (*row[:5], step.upto, step.state))

        self._file.write(work)

    def prepared(self, ends: Sequence[str]) -> int | None:
        """The raw block up to which the features of all these ends are made, and kept; None without ends."""

        def work(db: sqlite3.Connection) -> int | None:
            rows = [recipes.find(db, end) for end in ends]
            return min((0 if row is None else row[5] for row in rows), default=None)

        return self._file.read(work)

    def last_time(self, end: str) -> int:
        """Time of an end's newest row; the least possible when there is none."""
        query = "SELECT max(last) FROM feature JOIN ends ON ends.id = end_id WHERE name = ?"
        (newest,) = self._file.read(lambda db: db.execute(query, (end,)).fetchone())
        return -(2**63) if newest is None else int(newest)

    def newest(self) -> dict[str, int]:
        """Time of the newest row of each end that has one."""
        query = "SELECT name, max(last) FROM feature JOIN ends ON ends.id = end_id WHERE retired IS NULL GROUP BY name"
        return dict(self._file.read(lambda db: db.execute(query).fetchall()))

    def rows(self, end: str, until: int | None) -> Rows:
        """See `Store.features`."""
        recipe, block = self._read(end, None)
        block = block if until is None else block.upto(until)
        return _labelled(recipe, block, len(block))

    def latest_at_hand(self, end: str, n: int) -> Rows | None:
        """See `Store.latest_at_hand`."""
        found = self._tails.get(end, n)
        return None if found is None else _labelled(*found, n)

    def latest(self, end: str, n: int) -> Rows:
        """See `Store.latest`. Rows asked for again come out of memory, where `append` puts the new ones."""
        found = self._tails.get(end, n)
        if found is None:
            before = self._tails.generation
            try:
                found = self._read(end, n)
            except StoreError as error:
                if error.code != "FF-STORE-005":
                    raise
                return _labelled(Recipe("", (), Labelling("field")), _none(0), 0)
            if not self._file.read_only:
                self._tails.put(end, n, found, before)
        return _labelled(*found, n)

    def drop(self, need: int, before: int, blocks: int) -> Amounts:
        """Drop the oldest blocks, those of retired recipes first: until ``need`` bytes are free, and what was stored before ``before``.

        At most ``blocks`` in one go. The newest block of a recipe in use stays: an end always has its newest rows.
        """

        def work(db: sqlite3.Connection) -> tuple[Amounts, set[str]]:
            rows = db.execute(
                "SELECT feature.id, name, arrived, count, length(data) FROM feature JOIN ends ON ends.id = end_id"
                " WHERE retired IS NOT NULL OR feature.id < (SELECT max(id) FROM feature AS newer WHERE newer.end_id = ends.id)"
                " ORDER BY retired IS NULL, feature.id LIMIT ?",
                (blocks,),
            ).fetchall()
            total = Amounts()
            for number, end, arrived, count, size in rows:
                if total.dropped_bytes < need or arrived < before:
                    db.execute("DELETE FROM feature WHERE id = ?", (number,))
                    change = Amounts(1, count, size).dropped()
                    tally.change(db, "features", end, change)
                    total = total.plus(change)
            empty = "DELETE FROM ends WHERE retired IS NOT NULL AND NOT EXISTS (SELECT * FROM feature WHERE end_id = ends.id)"
            db.execute(empty)
            return total, {end for _, end, *_ in rows}

        total, ends = self._file.write(work)
        self._tails.forget(ends)
        return total

    def oldest(self) -> int | None:
        """When the oldest block was stored."""
        row = self._file.read(lambda db: db.execute("SELECT arrived FROM feature ORDER BY id LIMIT 1").fetchone())
        return None if row is None else int(row[0])

    def blocks(self, end: str, since: int, until: int) -> Iterable[FeatureBlock]:
        """Blocks of an end that have rows with ``since <= time < until``, in the order of time, decoded one by one."""

        def numbers(db: sqlite3.Connection) -> list[int]:
            query = "SELECT id FROM feature WHERE end_id = ? AND last >= ? AND first < ? ORDER BY first"
            return [number for (number,) in db.execute(query, (recipes.known(db, end)[0], since, until))]

        for number in self._file.read(numbers):
            yield from self._decoded(end, f"{_BLOCK} WHERE id = ?", (number,))

    def fields(self, end: str) -> tuple[str, ...]:
        """Names of the columns of an end's rows. Raises StoreError FF-STORE-005."""
        return self._file.read(lambda db: recipes.known(db, end))[1].fields

    def labels(self, end: str) -> Callable[[FeatureBlock], NDArray[np.float64]]:
        """Gives the labels of any block of an end, as `rows` would; its whole history is read once for that, if need be."""
        _, recipe = self._file.read(lambda db: recipes.known(db, end))
        blocks = self.blocks(end, -(2**63), 2**63 - 1)
        part = labeller(recipe.labelling, ((block.group, block.label) for block in blocks))
        return lambda block: part(block.group, block.label)

    def ends(self) -> list[str]:
        """Ends that rows are made for, by name."""
        query = "SELECT name FROM ends WHERE retired IS NULL ORDER BY name"
        return [name for (name,) in self._file.read(lambda db: db.execute(query).fetchall())]

    def _read(self, end: str, n: int | None) -> tuple[Recipe, FeatureBlock]:
        """The rows of an end, or blocks that hold its newest ``n``."""

        def work(db: sqlite3.Connection) -> tuple[Recipe, list[tuple[object, ...]]]:
            end_id, recipe = recipes.known(db, end)
            found, rows = [], 0
            for row in db.execute(f"{_BLOCK} WHERE end_id = ? ORDER BY first DESC", (end_id,)):
                found.append(row)
                rows += row[2]
                if n is not None and rows >= n:
                    break
            return recipe, found

        recipe, rows = self._file.read(work)
        blocks = [
            stored.decoded(codec.decode_features)
            for stored in self._finder.sound("features", [(end, Stored(*row)) for row in reversed(rows)])  # type: ignore[arg-type]
        ]
        return recipe, codec.join_features(blocks) if blocks else _none(len(recipe.fields))

    def _decoded(self, end: str, query: str, parameters: tuple[object, ...]) -> list[FeatureBlock]:
        rows = self._file.read(lambda db: db.execute(query, parameters).fetchall())
        stored = self._finder.sound("features", [(end, Stored(*row)) for row in rows])
        return [each.decoded(codec.decode_features) for each in stored]


def _parts(block: FeatureBlock) -> list[FeatureBlock]:
    return [block.part(start, start + _LARGE) for start in range(0, len(block), _LARGE)]


def _insert(
    db: sqlite3.Connection, end_id: int, origin: tuple[int | None, int, int], part: FeatureBlock, data: bytes
) -> None:
    """``origin``: number (None: the next one), when it was stored, raw block that is needed to make it again."""
    row = (*origin, end_id, int(part.time[0]), int(part.time[-1]), len(part), zlib.crc32(data), data)
    db.execute(
        "INSERT INTO feature (id, arrived, made, end_id, first, last, count, crc, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        row,
    )


def _merge(db: sqlite3.Connection, end_id: int, end: str) -> Amounts:
    """Make the newest blocks one when there are many small ones. A damaged one among them stays, for its reader to set aside."""
    newest = "FROM feature WHERE end_id = ? ORDER BY first DESC LIMIT ?"
    query = f"SELECT count(*), max(count) FROM (SELECT count {newest})"  # noqa: S608 - nothing foreign in it
    blocks, largest = db.execute(query, (end_id, _MERGE)).fetchone()
    if blocks < _MERGE or largest >= _SMALL:
        return Amounts()
    rows = db.execute(f"SELECT arrived, made, {_COLUMNS} {newest}", (end_id, _MERGE)).fetchall()[::-1]
    found = [(arrived, made, Stored(*row)) for arrived, made, *row in rows]
    if any(stored.problem() is not None for *_, stored in found):
        return Amounts()
    merged = codec.join_features([stored.decoded(codec.decode_features) for *_, stored in found])
    db.executemany("DELETE FROM feature WHERE id = ?", [(stored.number,) for *_, stored in found])
    parts = _parts(merged)
    size = 0
    for part, (_, _, stored) in zip(parts, found[-len(parts) :], strict=True):
        data = codec.encode_features(part, end)
        size += len(data)
        _insert(db, end_id, (stored.number, found[-1][0], found[0][1]), part, data)
    return Amounts(len(parts) - len(found), 0, size - sum(len(stored.data) for *_, stored in found))


def _labelled(recipe: Recipe, block: FeatureBlock, n: int) -> Rows:
    """The newest ``n`` rows with their labels."""
    labels = label(recipe.labelling, block.group, block.label)
    start = max(0, len(block) - n)
    return Rows(time=block.time[start:], x=block.x[start:], group=block.group[start:], label=labels[start:])


def _none(fields: int) -> FeatureBlock:
    return FeatureBlock(np.zeros(0, np.int64), np.zeros((0, fields)), np.zeros(0), np.zeros(0))
