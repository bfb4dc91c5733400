"""A store file replaced by a new one: because it has an earlier schema, or because it is damaged.

The new file is made beside the old one and takes its place in one step, so a crash meanwhile leaves the old one as it was. A damaged
file is never deleted: it stays beside the store as ``store.db.damaged-<time>``, with its log, for somebody who knows more.
"""

from __future__ import annotations

import os
import sqlite3
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import structlog

from gateway.store import codec, tally
from gateway.store.database import adopt, connect, reported
from gateway.store.ruins import Ruins
from gateway.store.tally import guard

log = structlog.get_logger(__name__)


def upgrade(path: Path) -> None:
    """Bring a store of an earlier schema up to the present one. Raises StoreError, and then nothing has changed."""
    began = time.monotonic()
    replace(path, lambda db: _from_1(db, path))
    log.info("store brought up to date", path=str(path), seconds=round(time.monotonic() - began, 1))


def salvage(path: Path, reason: str) -> None:
    """Set a damaged store aside and begin a new one with every block that can be read out of it. Raises StoreError."""
    began = time.monotonic()
    ruins = Ruins()
    aside = replace(path, lambda db: ruins.carry(path, db), aside="damaged")
    log.error(
        "damaged store set aside, a new one begun with what could be read",
        code="FF-STORE-008",
        problem=reason,
        aside=str(aside),
        seconds=round(time.monotonic() - began, 1),
        **ruins.summary(),
    )


def replace(path: Path, fill: Callable[[sqlite3.Connection], None], *, aside: str | None = None) -> Path | None:
    """Put a new store in the place of the one at ``path``. ``aside``: what the old one is called from then on, else it is removed."""
    fresh = path.with_name(path.name + ".new")
    _remove(fresh)
    db = connect(fresh, read_only=False)
    try:
        with reported(fresh):
            db.execute("PRAGMA synchronous = OFF")  # nobody relies on it before it is synchronised below
            db.execute("BEGIN")
            fill(db)
            db.execute("COMMIT")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        db.close()
    return put(path, fresh, aside)


def put(path: Path, fresh: Path, aside: str | None) -> Path | None:
    """Let the closed store ``fresh`` take the place of the one at ``path``, as in `replace`."""
    adopt(fresh)
    if path.exists():
        fresh.chmod(path.stat().st_mode & 0o777)
    synchronise(fresh)
    old = None
    if aside is not None and path.exists():
        old = _free(path, aside)
        os.link(path, old)
        if _log(path).exists():
            os.link(_log(path), _log(old))
    fresh.replace(_ready(path))
    synchronise(path.parent)
    finish(path)
    return old


def finish(path: Path) -> None:
    """Let a new store that is ready take its place; after a crash in the middle of that, too.

    The log of the old file goes first: SQLite would apply it to the new one.
    """
    if _ready(path).exists():
        _log(path).unlink(missing_ok=True)
        path.with_name(path.name + "-shm").unlink(missing_ok=True)
        synchronise(path.parent)
        _ready(path).replace(path)
        synchronise(path.parent)


def _from_1(db: sqlite3.Connection, path: Path) -> None:
    """Everything out of a file of schema 1: its blocks did not name their owner, and nothing was counted."""
    old = sqlite3.connect(path)
    try:
        now = time.time_ns()
        for number, name, cursor in old.execute("SELECT id, name, cursor FROM source"):
            db.execute("INSERT INTO source VALUES (?, ?, ?, ?)", (number, name, cursor, guard(number, name, cursor)))
        blocks = "SELECT raw.id, source, name, first, last, count, data FROM raw JOIN source ON source.id = raw.source ORDER BY raw.id"
        for number, source, name, first, last, count, data in old.execute(blocks):
            named = codec.named(data, source=name, first=first, last=last)
            row = (number, source, now, None, first, last, count, zlib.crc32(named), named)
            db.execute("INSERT INTO raw VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        for number, name, recipe, digest, upto, state in old.execute(
            "SELECT id, name, recipe, digest, upto, state FROM ends"
        ):
            end = (number, name, digest, recipe, None, upto, state)
            db.execute("INSERT INTO ends VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*end, guard(*end)))
        blocks = "SELECT feature.id, end_id, name, first, last, count, data FROM feature JOIN ends ON ends.id = end_id ORDER BY feature.id"
        for number, end_id, name, first, last, count, data in old.execute(blocks):
            named = codec.named(data, end=name, first=first, last=last)
            feature = (number, end_id, now, 0, first, last, count, zlib.crc32(named), named)
            db.execute("INSERT INTO feature VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", feature)
        for result in old.execute("SELECT id, time, model, version, end_name, inputs, outputs FROM result ORDER BY id"):
            db.execute("INSERT INTO result VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*result, guard(*result[1:])))
        for table, last in old.execute("SELECT name, seq FROM sqlite_sequence"):
            tally.number_from(db, table, last)
        tally.count_all(db)
    finally:
        old.close()


def _free(path: Path, what: str) -> Path:
    """A name beside ``path`` that nothing has yet."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    names = (f"{path.name}.{what}-{stamp}{extra}" for extra in ("", *(f"-{n}" for n in range(2, 1000))))
    return next(place for name in names if not (place := path.with_name(name)).exists())


def _ready(path: Path) -> Path:
    return path.with_name(path.name + ".ready")


def _log(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def synchronise(path: Path) -> None:
    """Let a file, or the names in a folder, reach the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
