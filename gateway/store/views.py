"""A store as tables of DuckDB, for an engineer who wants to look: SQL over it, and export to Parquet and CSV.

Blocks are decoded one by one into a database on disk that lives as long as the question, so memory is bounded whatever is asked for;
only the layers, sources, ends and times that are asked for are decoded. Nothing here can change the store. DuckDB is imported when the
first question comes: the daemon never asks one. What is not a number is NULL there, like what is missing.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from connectors.contract import Quality
from gateway.blocks import Kind, SampleBlock
from gateway.errors import StoreError
from gateway.store.records import Result
from gateway.store.store import LAYERS, Store
from gateway.store.tally import LayerName

if TYPE_CHECKING:
    import duckdb

Format = Literal["parquet", "csv"]
Progress = Callable[[int], None]

_MEMORY = "256MB"
_TIMES = "make_timestamp_ns(time) AS time"
_QUALITY = [quality.name.lower() for quality in Quality]
_RAW = (
    "source VARCHAR, tag VARCHAR, time TIMESTAMP_NS, value DOUBLE, text VARCHAR, quality VARCHAR, arrived TIMESTAMP_NS"
)
_RESULTS = "time TIMESTAMP_NS, model VARCHAR, version VARCHAR, end_name VARCHAR, inputs VARCHAR, outputs VARCHAR"


@dataclass(frozen=True, slots=True)
class Span:
    """What is asked for: ``since <= time < until`` (source time, ns since the epoch); sources of raw, ends of the others; all if empty."""

    since: int = -(2**63)
    until: int = 2**63 - 1
    names: tuple[str, ...] = ()

    def covers(self, name: str) -> bool:
        """Whether this source or end is asked for."""
        return not self.names or name in self.names


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of a query, as many as were wanted."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    more: bool
    """Whether there were more."""


def ask(store: Store, query: str, span: Span, *, most: int, progress: Progress = lambda rows: None) -> Answer:
    """Answer a SELECT over ``raw``, ``features``, ``features_<end>`` and ``results``. Raises StoreError FF-STORE-011."""
    import duckdb  # noqa: PLC0415

    with _database() as db, _asked(query):
        statements = db.extract_statements(query)
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            raise StoreError("FF-STORE-011", "only one SELECT is answered", hint="the store is never changed by SQL")
        words = set(re.findall(r"\w+", query))
        for layer in LAYERS:
            if layer in words or any(word.startswith(f"{layer}_") for word in words):
                _load(db, store, layer, span, progress)
        db.execute("SET enable_external_access = false; SET lock_configuration = true")
        found = db.execute(query)
        columns = tuple(column[0] for column in found.description or ())
        rows = found.fetchmany(most + 1)
    return Answer(columns, rows[:most], len(rows) > most)


def export(
    store: Store,
    layer: LayerName,
    target: Path,
    form: Format,
    span: Span,
    *,
    units: Mapping[str, Mapping[str, str]] | None = None,
    progress: Progress = lambda rows: None,
) -> dict[Path, int]:
    """Write a layer to files; gives the rows of each. Features make one file for each end, so ``target`` is a folder then.

    ``units``: of the columns, for each end (features) or of the tags of each source (raw); Parquet keeps them as metadata of the file
    (``units``, JSON). Raises StoreError FF-STORE-010 where a file exists.
    """
    written = {}
    with _database() as db:
        tables = _load(db, store, layer, span, progress)
        single = target.suffix == f".{form}" and len(tables) == 1
        for table, of in tables.items():
            place = target if single else target / f"{table}.{form}"
            if place.exists():
                raise StoreError(
                    "FF-STORE-010", f"{place} exists", hint="choose another name; an export replaces nothing"
                )
            place.parent.mkdir(parents=True, exist_ok=True)
            part = place.with_name(place.name + ".part")
            known = {name: each for name, each in (units or {}).items() if of in (None, name)}
            described = json.dumps(known.get(of, {}) if of else known, ensure_ascii=False)
            options = (
                f"FORMAT parquet, KV_METADATA {{units: {_text(described)}}}"
                if form == "parquet"
                else "FORMAT csv, HEADER"
            )
            db.execute(f"COPY {_name(table)} TO {_text(str(part))} ({options})")
            part.replace(place)
            (written[place],) = db.execute(f"SELECT count(*) FROM {_name(table)}").fetchone() or (0,)  # noqa: S608
    return written


@contextmanager
def _database() -> Iterator[duckdb.DuckDBPyConnection]:
    import duckdb  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="fedfab-") as folder:
        db = duckdb.connect(str(Path(folder) / "view.duckdb"))
        try:
            db.execute(f"SET memory_limit = '{_MEMORY}'; SET TimeZone = 'UTC'; SET threads = 2")
            yield db
        finally:
            db.close()


@contextmanager
def _asked(query: str) -> Iterator[None]:
    import duckdb  # noqa: PLC0415

    try:
        yield
    except duckdb.Error as error:
        hint = "tables: raw, features, features_<end>, results; `fedfab gateway store info` lists the ends"
        raise StoreError("FF-STORE-011", f"{query!r} cannot be answered: {error}", hint=hint) from error


def _load(
    db: duckdb.DuckDBPyConnection, store: Store, layer: LayerName, span: Span, progress: Progress
) -> dict[str, str | None]:
    """Fill the tables of a layer; gives their names, and the end whose rows each has (None: of all)."""
    match layer:
        case "raw":
            db.execute(f"CREATE TABLE raw ({_RAW})")
            for source in filter(span.covers, store.sources()):
                for block in store.raw_layer.read(source, span.since, span.until):
                    progress(_insert_samples(db, source, block, span))
            return {"raw": None}
        case "features":
            tables = {f"features_{end}": end for end in store.feature_layer.ends() if span.covers(end)}
            for table, end in tables.items():
                progress(_insert_rows(db, store, table, end, span))
            if tables:
                every = " UNION ALL BY NAME ".join(f"SELECT * FROM {_name(table)}" for table in tables)  # noqa: S608
                db.execute(f"CREATE VIEW features AS {every}")
            return dict(tables)
        case "results":
            db.execute(f"CREATE TABLE results ({_RESULTS})")
            for page in store.result_layer.pages(span.since, span.until, None):
                progress(_insert_results(db, [each for each in page if span.covers(each.end)]))
            return {"results": None}


def _insert_samples(db: duckdb.DuckDBPyConnection, source: str, block: SampleBlock, span: Span) -> int:
    chosen = np.flatnonzero((block.source_time >= span.since) & (block.source_time < span.until))
    kind = block.kind[chosen]
    worded = (kind == Kind.TEXT) | (kind == Kind.BIG_INTEGER)
    chunk = {
        "tag": block.tag[chosen].astype(np.int64) + 1,
        "time": block.source_time[chosen],
        "value": block.number[chosen],
        "text": np.where(worded, block.integer[chosen] + 1, 0),  # 0 is no position in DuckDB's lists, and gives NULL
        "quality": block.quality[chosen].astype(np.int64) + 1,
        "arrived": block.gateway_time[chosen],
    }
    return _insert(
        db,
        "raw",
        f"?, (?::VARCHAR[])[tag], {_TIMES}, value, (?::VARCHAR[])[text],"
        " (?::VARCHAR[])[quality], make_timestamp_ns(arrived)",
        chunk,
        [source, list(block.tags), list(block.texts), _QUALITY],
    )


def _insert_rows(db: duckdb.DuckDBPyConnection, store: Store, table: str, end: str, span: Span) -> int:
    fields = store.feature_layer.fields(end)
    columns = ", ".join(f"{_name(field)} DOUBLE" for field in fields)
    db.execute(
        f'CREATE TABLE {_name(table)} (end_name VARCHAR, time TIMESTAMP_NS, {columns}, "group" DOUBLE, label DOUBLE)'
    )
    labels = store.feature_layer.labels(end)
    chosen = ", ".join(f"x{i}" for i in range(len(fields)))
    total = 0
    for whole in store.feature_layer.blocks(end, span.since, span.until):
        block = whole.part(*np.searchsorted(whole.time, (span.since, span.until)).tolist())
        chunk: dict[str, NDArray[Any]] = {f"x{i}": np.ascontiguousarray(block.x[:, i]) for i in range(len(fields))}
        chunk |= {"time": block.time, "group_": block.group, "label": labels(block)}
        total += _insert(db, table, f"?, {_TIMES}, {chosen}, group_, label", chunk, [end])
    return total


def _insert_results(db: duckdb.DuckDBPyConnection, results: Sequence[Result]) -> int:
    if not results:
        return 0
    texts = [[each.model, each.version, each.end, each.inputs, json.dumps(each.outputs)] for each in results]
    names = ("model", "version", "end_name", "inputs", "outputs")
    chunk: dict[str, NDArray[Any]] = {"time": np.array([each.time for each in results], np.int64)}
    chunk |= {name: np.array(column, object) for name, column in zip(names, zip(*texts, strict=True), strict=True)}
    return _insert(db, "results", f"{_TIMES}, {', '.join(names)}", chunk, [])


def _insert(
    db: duckdb.DuckDBPyConnection, table: str, columns: str, chunk: Mapping[str, NDArray[Any]], values: list[Any]
) -> int:
    db.register("chunk", dict(chunk))
    db.execute(f"INSERT INTO {_name(table)} SELECT {columns} FROM chunk", values)  # noqa: S608
    db.unregister("chunk")
    return len(chunk["time"])


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
