"""The raw layer: samples as they came, in blocks numbered in the order of arrival, with the cursor of each source.

Small blocks are merged per source within windows of numbers (`WINDOW`), and a merged block remembers the numbers and lengths of its
parts. So nothing that reads in the order of arrival notices: the parts come out with their numbers, between those of other sources.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from gateway.blocks import SampleBlock
from gateway.store import codec, tally
from gateway.store.damage import Finder
from gateway.store.file import File
from gateway.store.records import RawBatch, RawBlock, Stored
from gateway.store.tally import Amounts, guard, verify

WINDOW = 1024
"""Numbers n·WINDOW … (n+1)·WINDOW-1 are merged together, once all of them are given. Part of the file's format."""

_SMALL = 512  # samples; a block with fewer is worth merging
_MERGED = 8192  # samples of a merged block at most
_PAGE = 300_000  # samples after which a page ends

_EARLIEST, _LATEST = -(2**63), 2**63 - 1


class Encoded(NamedTuple):
    """A batch ready to be written."""

    source: str
    cursor: str | None
    first: int
    last: int
    samples: int
    data: bytes

    @classmethod
    def of(cls, batch: RawBatch) -> Encoded:
        """Columns, compressed; no lock is held while this works."""
        block = SampleBlock.of(batch.samples)
        times = block.source_time
        data = codec.encode_samples(block, batch.source, batch.cursor)
        return cls(batch.source, batch.cursor, int(times.min()), int(times.max()), len(block), data)


class RawLayer:
    """Methods may be called from any thread; all raise StoreError."""

    def __init__(self, file: File, finder: Finder, now: Callable[[], int]) -> None:
        self._file = file
        self._finder = finder
        self._now = now
        self._arrived = 0  # of the newest block

    def append(self, batches: Sequence[Encoded]) -> list[int]:
        """Keep batches and cursors in one transaction, on disk when this returns. Gives their numbers."""

        def work(db: sqlite3.Connection) -> list[int]:
            arrived = self._arrival(db)
            numbers = []
            for batch in batches:
                source = _advance(db, batch.source, batch.cursor)
                row = (source, arrived, batch.first, batch.last, batch.samples, zlib.crc32(batch.data), batch.data)
                done = db.execute(
                    "INSERT INTO raw (source, arrived, first, last, count, crc, data) VALUES (?, ?, ?, ?, ?, ?, ?)", row
                )
                numbers.append(done.lastrowid or 0)
                tally.change(db, "raw", batch.source, Amounts(1, batch.samples, len(batch.data)))
            return numbers

        return self._file.write(work, durable=True)

    def cursor(self, source: str) -> str | None:
        """Where reading this source goes on."""
        row = self._file.read(lambda db: _source(db, source))
        return None if row is None else row[1]

    def last(self) -> int:
        """Number of the newest block there ever was."""
        rows = self._file.read(lambda db: db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'raw'").fetchall())
        return int(rows[0][0]) if rows else 0

    def first(self) -> int | None:
        """Number of the oldest block."""
        return self._file.read(_first)

    def blocks(self, after: int, limit: int, borders: Collection[int] | None) -> list[RawBlock]:
        """See `Store.raw_blocks`."""
        while True:
            page, end = self._file.read(lambda db, after=after: _page(db, after, limit, borders))  # type: ignore[misc]
            stored = {block.stored.number: (block.source, block.stored) for block in page}
            sound = {each.number for each in self._finder.sound("raw", stored.values())}
            found = [block for block in page if block.stored.number in sound]
            if found or end is None:
                return found
            after = end  # every block of the page was damaged

    def read(self, source: str, since: int, until: int) -> Iterable[SampleBlock]:
        """Blocks of a source that have samples with ``since <= source_time < until``, in the order of storing, decoded one by one."""

        def numbers(db: sqlite3.Connection) -> list[int]:
            query = (
                "SELECT raw.id FROM raw JOIN source ON source.id = raw.source"
                " WHERE source.name = ? AND last >= ? AND first < ? ORDER BY raw.id"
            )
            return [number for (number,) in db.execute(query, (source, since, until))]

        for number in self._file.read(numbers):
            row = self._file.read(
                lambda db, number=number: db.execute(  # type: ignore[misc]
                    "SELECT 'raw', id, count, crc, data FROM raw WHERE id = ?", (number,)
                ).fetchone()
            )
            if row is not None:
                for stored in self._finder.sound("raw", [(source, Stored(*row))]):
                    yield stored.samples

    def merge(self, window: int) -> int:
        """Merge the small blocks of one window, source by source. Gives how many blocks there are fewer."""

        def small(db: sqlite3.Connection) -> dict[int, list[int]]:
            query = (
                "SELECT source, id, count FROM raw WHERE id >= ? AND id < ? AND parts IS NULL AND count < ? ORDER BY id"
            )
            runs: dict[int, list[list[int]]] = {}
            sizes: dict[int, int] = {}
            for source, number, count in db.execute(query, (window * WINDOW, (window + 1) * WINDOW, _SMALL)):
                sizes[source] = sizes.get(source, _MERGED) + count
                if sizes[source] > _MERGED:
                    runs.setdefault(source, []).append([])
                    sizes[source] = count
                runs[source][-1].append(number)
            return {run[-1]: run for each in runs.values() for run in each if len(run) > 1}

        fewer = 0
        for run in self._file.read(small).values():
            merged = self._file.read(lambda db, run=run: _Merged.of(db, run))  # type: ignore[misc]
            if merged is not None:
                fewer += self._file.write(merged.take_its_place)
        return fewer

    def drop(self, need: int, before: int, upto: int, prepared: int, blocks: int) -> Amounts:
        """Drop the oldest blocks: until ``need`` bytes are free, and those that arrived earlier than ``before``.

        At most ``blocks`` in one go, and none numbered above ``upto``. Those above ``prepared`` are counted as lost to the features.
        """

        def work(db: sqlite3.Connection) -> Amounts:
            rows = db.execute(
                "SELECT raw.id, coalesce(source.name, ''), arrived, count, length(data)"
                " FROM raw LEFT JOIN source ON source.id = raw.source WHERE raw.id <= ? ORDER BY raw.id LIMIT ?",
                (upto, blocks),
            ).fetchall()
            total = Amounts()
            for number, source, arrived, count, size in rows:
                if total.dropped_bytes >= need and arrived >= before:
                    break
                db.execute("DELETE FROM raw WHERE id = ?", (number,))
                change = Amounts(1, count, size).dropped()._replace(unprepared=count if number > prepared else 0)
                tally.change(db, "raw", source, change)
                total = total.plus(change)
            return total

        return self._file.write(work)

    def oldest(self) -> int | None:
        """When the oldest block arrived."""
        row = self._file.read(lambda db: db.execute("SELECT arrived FROM raw ORDER BY id LIMIT 1").fetchone())
        return None if row is None else int(row[0])

    def _arrival(self, db: sqlite3.Connection) -> int:
        """The present time, but never earlier than that of the block before: a gateway may start before its clock is set."""
        if not self._arrived:
            row = db.execute("SELECT arrived FROM raw ORDER BY id DESC LIMIT 1").fetchone()
            self._arrived = row[0] if row else 0
        self._arrived = max(self._arrived, self._now())
        return self._arrived


def _first(db: sqlite3.Connection) -> int | None:
    number: int | None = db.execute("SELECT min(id) FROM raw").fetchone()[0]
    return number


def _source(db: sqlite3.Connection, name: str) -> tuple[int, str | None] | None:
    """Number and cursor of a source. Raises CorruptStoreError where they are not what was written."""
    row = db.execute("SELECT id, cursor, crc FROM source WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    verify("source", (row[0], name, row[1]), row[2])
    return row[0], row[1]


def _advance(db: sqlite3.Connection, name: str, cursor: str | None) -> int:
    """Number of the source; its cursor set, if there is a new one."""
    found = _source(db, name)
    if found is None:
        (number,) = db.execute("SELECT coalesce(max(id), 0) + 1 FROM source").fetchone()
        db.execute("INSERT INTO source VALUES (?, ?, ?, ?)", (number, name, cursor, guard(number, name, cursor)))
        return int(number)
    number, before = found
    if cursor is not None and cursor != before:
        db.execute("UPDATE source SET cursor = ?, crc = ? WHERE id = ?", (cursor, guard(number, name, cursor), number))
    return number


def _page(
    db: sqlite3.Connection, after: int, limit: int, borders: Collection[int] | None
) -> tuple[list[RawBlock], int | None]:
    """The next blocks, and the last number of their window; None when there are none."""
    first: int | None = db.execute("SELECT min(id) FROM raw WHERE id > ?", (after,)).fetchone()[0]
    if first is None:
        return [], None
    end = (first // WINDOW + 1) * WINDOW
    rows = db.execute("SELECT id, count, parts FROM raw WHERE id > ? AND id < ?", (after, end)).fetchall()
    runs: list[list[int]] = []  # number of the stored block, first and last sample, number of the last part
    samples = 0
    parts = sorted(part for row in rows for part in _parts(*row) if part[0] > after)
    for number, block, start, stop in parts:
        if runs and borders is not None and runs[-1][0] == block and runs[-1][3] not in borders:
            runs[-1][2:] = [stop, number]
        elif len(runs) == limit or samples >= _PAGE:
            break
        else:
            runs.append([block, start, stop, number])
        samples += stop - start
    stored: dict[int, tuple[str, Stored]] = {}
    for block in {run[0] for run in runs}:
        source, *columns = db.execute(
            "SELECT coalesce(source.name, ''), 'raw', raw.id, count, raw.crc, data"
            " FROM raw LEFT JOIN source ON source.id = raw.source WHERE raw.id = ?",
            (block,),
        ).fetchone()
        stored[block] = source, Stored(*columns)
    return [RawBlock(stored[block][0], last, stored[block][1], slice(a, b)) for block, a, b, last in runs], end - 1


def _parts(row: int, count: int, parts: str | None) -> Iterable[tuple[int, int, int, int]]:
    """Number of each part, of the block it lies in, where its samples begin and end there."""
    if parts is None:
        return [(row, row, 0, count)]
    places = []
    at = 0
    for number, length in json.loads(parts):
        places.append((number, row, at, at + length))
        at += length
    return places


class _Merged(NamedTuple):
    """Blocks of one source as one, ready to be written: made without keeping anybody from appending."""

    source: str
    parts: list[tuple[int, int]]
    row: tuple[object, ...]
    saved: int

    @classmethod
    def of(cls, db: sqlite3.Connection, numbers: Sequence[int]) -> _Merged | None:
        """Merge them under the number of the last. A damaged one is left out, for its reader to set aside; None: nothing to merge."""
        marks = ", ".join("?" * len(numbers))
        query = f"SELECT source, arrived, first, last, 'raw', id, count, crc, data FROM raw WHERE id IN ({marks}) ORDER BY id"  # noqa: S608
        found = [(row[:4], Stored(*row[4:])) for row in db.execute(query, tuple(numbers))]
        sound = [(row, stored) for row, stored in found if stored.problem() is None and stored.header.source]
        if len(sound) < 2:
            return None
        blocks = [stored for _, stored in sound]
        name = blocks[0].header.source or ""
        cursor = next((block.header.cursor for block in reversed(blocks) if block.header.cursor is not None), None)
        parts = [(block.number, block.count) for block in blocks]
        data = codec.encode_samples(codec.join_samples([block.samples for block in blocks]), name, cursor, parts)
        row = (
            *(parts[-1][0], sound[-1][0][0], sound[-1][0][1], json.dumps(parts, separators=(",", ":"))),
            *(min(row[2] for row, _ in sound), max(row[3] for row, _ in sound)),
            *(sum(block.count for block in blocks), zlib.crc32(data), data),
        )
        return cls(name, parts, row, sum(len(block.data) for block in blocks) - len(data))

    def take_its_place(self, db: sqlite3.Connection) -> int:
        """Replace the blocks, if all of them are still there. Gives how many blocks there are fewer."""
        marks = ", ".join("?" * len(self.parts))
        numbers = [number for number, _ in self.parts]
        there = f"SELECT count(*) FROM raw WHERE id IN ({marks})"  # noqa: S608
        if db.execute(there, numbers).fetchone()[0] < len(numbers):
            return 0
        db.execute(f"DELETE FROM raw WHERE id IN ({marks})", numbers)  # noqa: S608
        db.execute(
            "INSERT INTO raw (id, source, arrived, parts, first, last, count, crc, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            self.row,
        )
        tally.change(db, "raw", self.source, Amounts(1 - len(numbers), 0, -self.saved))
        return len(numbers) - 1
