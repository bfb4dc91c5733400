"""One SQLite file in WAL mode: a writer in the daemon, any number of readers in other processes.

Batches are kept as one checksummed block each, not as a row for each sample: that is what makes it fast. The raw layer is written
with ``synchronous=FULL``, because its source may forget a batch once `Store.append_raw` has returned; what lies above it can be
computed again, so it is written with NORMAL: whole after a crash, perhaps a little behind after a power cut, and then caught up.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import orjson

from connectors.contract import Sample
from gateway.blocks import FeatureBlock, SampleBlock
from gateway.errors import StoreError
from gateway.store import codec
from gateway.store.database import connect, exclusive, reported
from gateway.store.labels import Labelling, label
from gateway.store.records import Progress, RawBatch, RawBlock, Recipe, Result, Stored
from models.dataset import Rows

_MERGE = 64  # this many small feature blocks become one, so that an end that gives a row a second stays quick to read
_SMALL = 512  # rows; a block with fewer is small
_LARGE = 1024  # rows of a block at most, so that the newest window of an end is read without reading its history


class Store:
    """Raw, feature and result layer of one gateway. Methods may be called from any thread; all raise StoreError."""

    def __init__(
        self, path: Path, write: sqlite3.Connection | None, read: sqlite3.Connection, lock: int | None
    ) -> None:
        self._path = path
        self._write = write
        self._read = read
        self._lock = lock
        self._writing = threading.Lock()
        self._reading = threading.Lock()

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Self:
        """Open the store, or create it. There is one writer at a time; readers come and go as they like."""
        if read_only:
            if not path.exists():
                raise StoreError(
                    "FF-STORE-004", f"there is no store at {path}", hint="start the gateway once: it makes it"
                )
            return cls(path, None, connect(path, read_only=True), None)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = exclusive(path.with_suffix(".lock"))
        try:
            write = connect(path, read_only=False)
            return cls(path, write, connect(path, read_only=True), lock)
        except BaseException:
            os.close(lock)
            raise

    def close(self) -> None:
        """Close; twice is harmless."""
        for connection in (self._read, self._write):
            if connection is not None:
                connection.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # raw layer

    def append_raw(self, source: str, samples: Sequence[Sample], cursor: str | None) -> int:
        """Keep a batch, and the cursor behind it, in one transaction. On disk when this returns. Gives the block's number."""
        return self.append_raw_many([RawBatch(source, samples, cursor)])[0]

    def append_raw_many(self, batches: Sequence[RawBatch]) -> list[int]:
        """Keep several batches, and the cursors behind them, in one transaction: all or none is on disk when this returns.

        A commit costs a wait for the disk (milliseconds), whatever it carries: one writer that takes all batches that wait keeps
        several times more than one that commits each. Gives the blocks' numbers, in order.
        """
        blocks = [SampleBlock.of(batch.samples) for batch in batches]
        encoded = [codec.encode_samples(block) for block in blocks]
        numbers = []
        with self._transaction(durable=True) as write:
            for batch, block, data in zip(batches, blocks, encoded, strict=True):
                (source_id,) = write.execute(
                    "INSERT INTO source (name, cursor) VALUES (?, ?)"
                    " ON CONFLICT (name) DO UPDATE SET cursor = coalesce(excluded.cursor, cursor) RETURNING id",
                    (batch.source, batch.cursor),
                ).fetchone()
                first, last = int(block.source_time.min()), int(block.source_time.max())
                row = (source_id, first, last, len(block), zlib.crc32(data), data)
                done = write.execute(
                    "INSERT INTO raw (source, first, last, count, crc, data) VALUES (?, ?, ?, ?, ?, ?)", row
                )
                numbers.append(done.lastrowid or 0)
        return numbers

    def cursor(self, source: str) -> str | None:
        """Where reading this source goes on; None if it was never read, or has no cursor."""
        rows = self._select("SELECT cursor FROM source WHERE name = ?", (source,))
        return rows[0][0] if rows else None

    def raw_blocks(self, after: int, limit: int = 256) -> list[RawBlock]:
        """The next blocks in the order of arrival."""
        rows = self._select(
            "SELECT source.name, raw.id, count, crc, data FROM raw JOIN source ON source.id = raw.source"
            " WHERE raw.id > ? ORDER BY raw.id LIMIT ?",
            (after, limit),
        )
        return [RawBlock(source, Stored("raw", *stored)) for source, *stored in rows]

    def last_raw(self) -> int:
        """Number of the newest raw block, 0 when there is none."""
        return int(self._select("SELECT coalesce(max(id), 0) FROM raw")[0][0])

    def read_raw(
        self, source: str, *, tags: Collection[str] | None = None, since: int = -(2**63), until: int = 2**63 - 1
    ) -> list[Sample]:
        """Samples of a source with ``since <= source_time < until``, ordered by source time, then by arrival."""
        rows = self._select(
            "SELECT 'raw', raw.id, count, crc, data FROM raw JOIN source ON source.id = raw.source"
            " WHERE source.name = ? AND last >= ? AND first < ? ORDER BY raw.id",
            (source, since, until),
        )
        samples = [
            sample
            for row in rows
            for sample in Stored(*row).decoded(codec.decode_samples).samples()
            if since <= sample.source_time < until and (tags is None or sample.tag in tags)
        ]
        return sorted(samples, key=lambda sample: sample.source_time)

    # feature layer

    def declare(self, end: str, recipe: Recipe) -> Progress:
        """Say what an end's features are made with. If that is new, the old rows are dropped and the progress is zero."""
        text = json.dumps({"fields": recipe.fields, "labelling": asdict(recipe.labelling)})
        with self._transaction() as write:
            row = write.execute("SELECT digest, upto, state FROM ends WHERE name = ?", (end,)).fetchone()
            if row is not None and row[0] == recipe.digest:
                return Progress(row[1], row[2])
            self._forget(write, end)
            write.execute(
                "INSERT INTO ends (name, recipe, digest, upto, state) VALUES (?, ?, ?, 0, '')",
                (end, text, recipe.digest),
            )
        return Progress()

    def forget_features(self, end: str) -> None:
        """Drop an end's feature rows and its progress; the raw layer stays."""
        with self._transaction() as write:
            self._forget(write, end)

    def append_features(self, end: str, block: FeatureBlock) -> None:
        """Keep rows of a declared end, later than all it has."""
        self.append_all_features({end: block})

    def append_all_features(self, blocks: Mapping[str, FeatureBlock]) -> None:
        """Keep rows of several ends in one transaction."""
        with self._transaction() as write:
            for end, block in blocks.items():
                if len(block):
                    end_id, _ = self._end(write, end)
                    _insert_features(write, end_id, block)
                    _merge_features(write, end_id)

    def save_progress(self, progress: Mapping[str, Progress]) -> None:
        """Keep how far each of these ends has come."""
        with self._transaction() as write:
            write.executemany(
                "UPDATE ends SET upto = ?, state = ? WHERE name = ?",
                [(step.upto, step.state, end) for end, step in progress.items()],
            )

    def last_time(self, end: str) -> int:
        """Time of an end's newest row; the least possible when there is none."""
        rows = self._select(
            "SELECT max(last) FROM feature JOIN ends ON ends.id = feature.end_id WHERE ends.name = ?", (end,)
        )
        return -(2**63) if rows[0][0] is None else int(rows[0][0])

    def features(self, end: str, *, until: int | None = None) -> Rows:
        """All feature rows of an end in the order of time, with their labels; none when it has none yet.

        With ``until`` only those not later, labelled as if nothing had come after them: whenever it is asked, the answer is the same.
        """
        return self._rows(end, None, until)

    def latest(self, end: str, n: int) -> Rows:
        """The newest ``n`` feature rows of an end, or as many as there are: none before its preparation has begun."""
        try:
            return self._rows(end, n, None)
        except StoreError as error:
            if error.code != "FF-STORE-005":
                raise
            none = _none(0)
            return Rows(time=none.time, x=none.x, group=none.group, label=none.label)

    # result layer

    def append_results(self, results: Sequence[Result]) -> None:
        """Keep predictions that were given.

        As one statement over one JSON text: row by row, each row would take the interpreter from whoever answers requests meanwhile.
        """
        rows = [[r.time, r.model, r.version, r.end, r.inputs, r.outputs] for r in results]
        text = orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY).decode()
        with self._transaction() as write:
            write.execute(
                "INSERT INTO result (time, model, version, end_name, inputs, outputs) SELECT value ->> 0, value ->> 1, value ->> 2,"
                " value ->> 3, value ->> 4, value -> 5 FROM json_each(?)",
                (text,),
            )

    def results(self, *, end: str | None = None, since: int = -(2**63), limit: int = 1000) -> list[Result]:
        """Predictions given since a time, oldest first."""
        rows = self._select(
            "SELECT time, model, version, end_name, inputs, outputs FROM result"
            " WHERE time >= ? AND (? IS NULL OR end_name = ?) ORDER BY time, id LIMIT ?",
            (since, end, end, limit),
        )
        return [
            Result(time, model, version, name, inputs, json.loads(outputs))
            for time, model, version, name, inputs, outputs in rows
        ]

    def rows(self) -> dict[str, tuple[int, int]]:
        """How many feature rows each end has, and the time of its newest; an end without rows is absent."""
        query = "SELECT name, sum(count), max(last) FROM ends JOIN feature ON end_id = ends.id GROUP BY name"
        return {name: (count, newest) for name, count, newest in self._select(query)}

    def counts(self) -> dict[str, dict[str, int]]:
        """Samples of each source, rows of each end, results of each model."""
        queries = {
            "raw": "SELECT name, sum(count) FROM source JOIN raw ON raw.source = source.id GROUP BY name",
            "features": "SELECT name, sum(count) FROM ends JOIN feature ON end_id = ends.id GROUP BY name",
            "results": "SELECT model, count(*) FROM result GROUP BY model",
        }
        return {layer: dict(self._select(query)) for layer, query in queries.items()}

    # helpers

    @contextmanager
    def _transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        write = self._write
        if write is None:
            raise StoreError("FF-STORE-004", f"{self._path} is open for reading only")
        with self._writing, reported(self._path):
            write.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            write.execute("BEGIN IMMEDIATE")
            try:
                yield write
            except BaseException:
                write.execute("ROLLBACK")
                raise
            write.execute("COMMIT")

    def _select(self, query: str, parameters: Sequence[object] = ()) -> list[Any]:
        with self._reading, reported(self._path):
            return self._read.execute(query, parameters).fetchall()

    @staticmethod
    def _end(connection: sqlite3.Connection, name: str) -> tuple[int, Recipe]:
        row = connection.execute("SELECT id, recipe, digest FROM ends WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise StoreError("FF-STORE-005", f'the store knows no end "{name}"', hint="is it in the configuration?")
        recipe = json.loads(row[1])
        return row[0], Recipe(row[2], tuple(recipe["fields"]), Labelling(**recipe["labelling"]))

    @staticmethod
    def _forget(write: sqlite3.Connection, end: str) -> None:
        write.execute("DELETE FROM feature WHERE end_id IN (SELECT id FROM ends WHERE name = ?)", (end,))
        write.execute("DELETE FROM ends WHERE name = ?", (end,))

    def _rows(self, end: str, n: int | None, until: int | None) -> Rows:
        with self._reading, reported(self._path):
            end_id, recipe = self._end(self._read, end)
            query = "SELECT 'feature', id, count, crc, data FROM feature WHERE end_id = ? ORDER BY first DESC"
            found: list[FeatureBlock] = []
            rows = 0
            for row in self._read.execute(query, (end_id,)):
                found.append(Stored(*row).decoded(codec.decode_features))
                rows += len(found[-1])
                if n is not None and rows >= n:
                    break
        block = _concatenate(found[::-1]) if found else _none(len(recipe.fields))
        if until is not None:
            block = block.upto(until)
        labels = label(recipe.labelling, block.group, block.label)
        start = 0 if n is None else max(0, len(block) - n)
        return Rows(time=block.time[start:], x=block.x[start:], group=block.group[start:], label=labels[start:])


def _insert_features(write: sqlite3.Connection, end_id: int, block: FeatureBlock) -> None:
    for start in range(0, len(block), _LARGE):
        part = block.part(start, start + _LARGE)
        data = codec.encode_features(part)
        write.execute(
            "INSERT INTO feature (end_id, first, last, count, crc, data) VALUES (?, ?, ?, ?, ?, ?)",
            (end_id, int(part.time[0]), int(part.time[-1]), len(part), zlib.crc32(data), data),
        )


def _merge_features(write: sqlite3.Connection, end_id: int) -> None:
    """Make the newest blocks one when there are many small ones."""
    newest = "FROM feature WHERE end_id = ? ORDER BY first DESC LIMIT ?"
    query = f"SELECT count(*), max(count) FROM (SELECT count {newest})"  # noqa: S608 - nothing foreign in it
    blocks, largest = write.execute(query, (end_id, _MERGE)).fetchone()
    if blocks == _MERGE and largest < _SMALL:
        rows = write.execute(f"SELECT 'feature', id, count, crc, data {newest}", (end_id, _MERGE)).fetchall()
        small = [Stored(*row) for row in reversed(rows)]
        merged = _concatenate([stored.decoded(codec.decode_features) for stored in small])
        write.executemany("DELETE FROM feature WHERE id = ?", [(stored.number,) for stored in small])
        _insert_features(write, end_id, merged)


def _concatenate(blocks: Sequence[FeatureBlock]) -> FeatureBlock:
    if len(blocks) == 1:
        return blocks[0]
    return FeatureBlock(
        time=np.concatenate([block.time for block in blocks]),
        x=np.concatenate([block.x for block in blocks]),
        group=np.concatenate([block.group for block in blocks]),
        label=np.concatenate([block.label for block in blocks]),
    )


def _none(fields: int) -> FeatureBlock:
    return FeatureBlock(np.zeros(0, np.int64), np.zeros((0, fields)), np.zeros(0), np.zeros(0))
