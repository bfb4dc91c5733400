"""The file itself: its tables, its version, who may write it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.errors import StoreError

VERSION = 1
_APPLICATION = 0xFEDFAB

_TABLES = """
CREATE TABLE source (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, cursor TEXT);
CREATE TABLE raw (
    id INTEGER PRIMARY KEY AUTOINCREMENT, source INTEGER NOT NULL REFERENCES source (id),
    first INTEGER NOT NULL, last INTEGER NOT NULL, count INTEGER NOT NULL, crc INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX raw_time ON raw (source, first, last);
CREATE TABLE ends (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, recipe TEXT NOT NULL, digest TEXT NOT NULL,
    upto INTEGER NOT NULL, state TEXT NOT NULL);
CREATE TABLE feature (
    id INTEGER PRIMARY KEY AUTOINCREMENT, end_id INTEGER NOT NULL REFERENCES ends (id),
    first INTEGER NOT NULL, last INTEGER NOT NULL, count INTEGER NOT NULL, crc INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX feature_time ON feature (end_id, first, count);
CREATE TABLE result (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL,
    end_name TEXT NOT NULL, inputs TEXT NOT NULL, outputs TEXT NOT NULL);
CREATE INDEX result_time ON result (time);
"""


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """A connection in autocommit mode to a store of this version, made if need be. Raises StoreError."""
    with reported(path):
        uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=30)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if (tables or read_only) and application != _APPLICATION:
                raise StoreError("FF-STORE-002", f"{path} is not a store of fedfab")
            if version > VERSION:
                hint = "use the fedfab that wrote it, or a later one"
                raise StoreError("FF-STORE-002", f"{path} has schema {version}, this fedfab knows {VERSION}", hint=hint)
            if not read_only:
                connection.execute("PRAGMA journal_mode = WAL")
                if not tables:
                    connection.executescript(
                        f"BEGIN; {_TABLES} PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
                    )
        except BaseException:
            connection.close()
            raise
        return connection


def exclusive(path: Path) -> int:
    """Handle of a lock that one process at a time can have; closing it gives the lock back. Raises StoreError."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        hint = "stop the running gateway first"
        raise StoreError("FF-STORE-001", f"{path.with_suffix('.db')} is in use by another gateway", hint=hint) from None
    return handle


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turns an error of SQLite into a StoreError that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(
            "FF-STORE-006", f"{path}: {error}", hint="check free space, permissions and the disk"
        ) from error
