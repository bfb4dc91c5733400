"""One store file as the layers use it: work done in transactions, damage of the file noticed, mended, and the work done again."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import structlog
from prometheus_client import Histogram

from gateway.errors import CorruptStoreError, StoreError
from gateway.store import renewal
from gateway.store.database import OldStoreError, connect, exclusive, reported

log = structlog.get_logger(__name__)

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class File:
    """A connection that writes and one that reads. Methods may be called from any thread; all raise StoreError.

    Where SQLite finds the file itself damaged, a writable File sets it aside, begins a new one with all blocks that can be read out of
    the old one (`gateway.store.renewal`), and does the work again. One that only reads notices the new file and goes over to it.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self.path = path
        self.read_only = read_only
        self.renewed = 0
        """How often the file had to be set aside since it was opened."""
        self.wrote: Callable[[], None] = lambda: None
        """Called after each transaction."""
        self.commits_done = 0
        """Durable transactions since it was opened."""
        self.commits = Histogram(
            "fedfab_store_commit_seconds",
            "Durable commits, wait for the disk included.",
            buckets=_SECONDS,
            registry=None,
        )
        """How long durable transactions took, the wait for the disk included."""
        if read_only and not path.exists():
            hint = "start the gateway once: it makes it"
            raise StoreError("FF-STORE-004", f"there is no store at {path}", hint=hint)
        self._lock = None if read_only else _locked(path)
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._write: sqlite3.Connection | None = None
        self._read: sqlite3.Connection | None = None
        self._inode = 0
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def size(self) -> int:
        """Bytes on disk, the log included."""
        places = [self.path.with_name(self.path.name + suffix) for suffix in ("", "-wal")]
        return sum(place.stat().st_size for place in places if place.exists())

    def close(self) -> None:
        """Close; twice is harmless."""
        with self._writing, self._reading:
            self._disconnect()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def write(self, work: Work[T], *, durable: bool = False) -> T:
        """Do ``work`` in a transaction, all of it or none. Durable: on disk when this returns, else soon after."""
        if self.read_only:
            raise StoreError("FF-STORE-004", f"{self.path} is open for reading only")
        return self._mended(lambda: self._transaction(work, durable))

    def read(self, work: Work[T]) -> T:
        """Do ``work`` with a connection that only reads; it sees one state of the store, whatever is written meanwhile."""
        return self._mended(lambda: self._snapshot(work))

    def maintain(self, work: Work[T]) -> T:
        """Do ``work`` that must not stand in a transaction with the connection that writes."""

        def alone() -> T:
            with self._writing, reported(self.path):
                return work(self._writer())

        return self._mended(alone)

    def renew(self, reason: str, before: int | None = None) -> None:
        """Set the file aside and go on with a new one; not if that has happened since ``renewed`` was ``before``."""
        with self._writing, self._reading:
            if before is None or self.renewed == before:
                self._disconnect()
                renewal.salvage(self.path, reason)
                self._connect()
                self.renewed += 1

    def _transaction(self, work: Work[T], durable: bool) -> T:
        with self._writing, reported(self.path):
            db = self._writer()
            began = time.perf_counter()
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            db.execute("BEGIN IMMEDIATE")
            try:
                done = work(db)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            if durable:
                self.commits_done += 1
                self.commits.observe(time.perf_counter() - began)
        self.wrote()
        return done

    def _snapshot(self, work: Work[T]) -> T:
        with self._reading, reported(self.path):
            if self.read_only and os.stat(self.path).st_ino != self._inode:
                self._disconnect()
                self._connect()
            db = self._read
            if db is None:
                raise StoreError("FF-STORE-004", f"{self.path} is closed")
            db.execute("BEGIN")
            try:
                return work(db)
            finally:
                if db.in_transaction:
                    db.execute("COMMIT")

    def _mended(self, attempt: Callable[[], T]) -> T:
        before = self.renewed
        try:
            return attempt()
        except CorruptStoreError as damage:
            if self.read_only:
                raise
            self.renew(str(damage), before)
        return attempt()

    def _connect(self) -> None:
        if not self.read_only:
            renewal.finish(self.path)
            try:
                self._write = connect(self.path, read_only=False)
            except OldStoreError:
                renewal.upgrade(self.path)
                self._write = connect(self.path, read_only=False)
            except CorruptStoreError as damage:
                renewal.salvage(self.path, str(damage))
                self.renewed += 1
                self._write = connect(self.path, read_only=False)
        self._read = connect(self.path, read_only=True)
        self._inode = os.stat(self.path).st_ino

    def _disconnect(self) -> None:
        for connection in (self._read, self._write):
            if connection is not None:
                connection.close()
        self._read = self._write = None

    def _writer(self) -> sqlite3.Connection:
        if self._write is None:
            raise StoreError("FF-STORE-004", f"{self.path} is closed")
        return self._write


def _locked(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return exclusive(path.with_suffix(".lock"))
