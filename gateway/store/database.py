"""The file itself: its tables, its version, who may write it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.errors import CorruptStoreError, StoreError
from gateway.store import tally

VERSION = 2
APPLICATION = 0xFEDFAB

TABLES = """
CREATE TABLE source (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, cursor TEXT, crc INTEGER NOT NULL);
CREATE TABLE raw (
    id INTEGER PRIMARY KEY AUTOINCREMENT, source INTEGER NOT NULL, arrived INTEGER NOT NULL, parts TEXT,
    first INTEGER NOT NULL, last INTEGER NOT NULL, count INTEGER NOT NULL, crc INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX raw_time ON raw (source, first, last);
CREATE TABLE ends (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, digest TEXT NOT NULL, recipe TEXT NOT NULL, retired INTEGER,
    upto INTEGER NOT NULL, state TEXT NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE feature (
    id INTEGER PRIMARY KEY AUTOINCREMENT, end_id INTEGER NOT NULL, arrived INTEGER NOT NULL, made INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, count INTEGER NOT NULL, crc INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX feature_time ON feature (end_id, first, count);
CREATE TABLE result (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL,
    end_name TEXT NOT NULL, inputs TEXT NOT NULL, outputs TEXT NOT NULL, crc INTEGER NOT NULL);
CREATE INDEX result_time ON result (time);
CREATE TABLE tally (layer TEXT NOT NULL, name TEXT NOT NULL, amounts TEXT NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY (layer, name)) WITHOUT ROWID;
CREATE TABLE damaged (
    id INTEGER PRIMARY KEY, layer TEXT NOT NULL, name TEXT NOT NULL, block INTEGER NOT NULL, entries INTEGER NOT NULL,
    reason TEXT NOT NULL, found INTEGER NOT NULL, data BLOB);
"""

_BAD_TEXT = ("Could not decode to UTF-8", "no such table", "no such column", "malformed", "unsupported file format")
_BAD_FILE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """A connection in autocommit mode to a store of this version, made if need be.

    Raises StoreError; CorruptStoreError where the file is damaged; OldStoreError where an earlier fedfab wrote it.
    """
    with reported(path):
        _check_header(path)
        connection = _open(path, read_only=read_only)
        try:
            empty = not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            if not empty or read_only:
                check_version(connection, path)
            if not read_only:
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # must come before the first table
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(f"PRAGMA journal_size_limit = {_LONGEST_LOG}")
                connection.execute("PRAGMA secure_delete = ON")  # what retention drops is overwritten (clause 9.4.1.1f)
                if empty:
                    script = f"{TABLES} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"
                    connection.executescript(f"BEGIN; {script} {tally.schema(VERSION)} COMMIT;")
        except BaseException:
            connection.close()
            raise
        return connection


def check_version(connection: sqlite3.Connection, path: Path) -> None:
    """Raises StoreError for a file that is not a store, or of a later version; OldStoreError for an earlier one."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if application != APPLICATION or not 0 < version <= VERSION + _PLAUSIBLE:
        if {"source", "raw", "ends", "feature", "result"} <= tables:
            raise CorruptStoreError("FF-STORE-008", f"{path}: its header is damaged")
        raise StoreError("FF-STORE-002", f"{path} is not a store of fedfab")
    if "tally" in tables and (said := tally.said_schema(connection)) is not None and said != version:
        raise CorruptStoreError("FF-STORE-008", f"{path}: its header is damaged")
    if version > VERSION:
        hint = "use the fedfab that wrote it, or a later one"
        raise StoreError("FF-STORE-002", f"{path} has schema {version}, this fedfab knows {VERSION}", hint=hint)
    if version < VERSION:
        hint = "start the gateway once: it brings the store up to date"
        raise OldStoreError("FF-STORE-002", f"{path} has schema {version}, this fedfab writes {VERSION}", hint=hint)


class OldStoreError(StoreError):
    """The file has an earlier schema; `gateway.store.renewal` can bring it up to date."""


def exclusive(path: Path) -> int:
    """Handle of a lock that one process at a time can have; closing it gives the lock back. Raises StoreError."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    adopt(path)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        hint = "stop the running gateway first"
        raise StoreError("FF-STORE-001", f"{path.with_suffix('.db')} is in use by another gateway", hint=hint) from None
    return handle


def adopt(path: Path) -> None:
    """Give a file that root has made to the owner of its folder: the gateway runs as somebody else and must be able to write it."""
    if os.geteuid() == 0:
        folder = path.absolute().parent.stat()
        os.chown(path, folder.st_uid, folder.st_gid)


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turns an error of SQLite into a StoreError that names the file; CorruptStoreError where the file is what is wrong."""
    try:
        yield
    except UnicodeDecodeError as error:  # in a message of SQLite's that quotes what it could not read
        raise CorruptStoreError("FF-STORE-008", f"{path}: its schema is damaged") from error
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BAD_FILE or any(each in str(error) for each in _BAD_TEXT):
            raise CorruptStoreError("FF-STORE-008", f"{path}: {error}") from error
        raise StoreError(
            "FF-STORE-006", f"{path}: {error}", hint="check free space, permissions and the disk"
        ) from error


_LONGEST_LOG = 64_000_000  # bytes that the write-ahead log keeps after it had to grow
_PLAUSIBLE = 1000  # versions ahead of this one; a number beyond is a damaged header


def _check_header(path: Path) -> None:
    """Raises CorruptStoreError where the header asks for a later SQLite: this one would read the file and refuse to write it."""
    if path.exists():
        with path.open("rb") as file:
            header = file.read(20)
        if len(header) == 20 and (header[18] not in (1, 2) or header[19] not in (1, 2)):
            raise CorruptStoreError("FF-STORE-008", f"{path}: its header is damaged")


def _open(path: Path, *, read_only: bool) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=30)
