"""Copies of a store, made while it is in use, and put in its place again."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import StoreError
from gateway.store import renewal
from gateway.store.check import Report, check
from gateway.store.database import check_version, connect, exclusive, reported
from gateway.store.store import Store

_PAGES = 2048  # copied at once

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy that was made and verified."""

    path: Path
    bytes: int
    report: Report


def back_up(path: Path, target: Path, progress: Progress = lambda done, total: None) -> Backup:
    """Copy the store at ``path`` to the file ``target``: one state of it, while the gateway goes on appending.

    The copy is verified, every checksum, before it gets its name. Raises StoreError FF-STORE-009 where it is not sound, FF-STORE-010
    where ``target`` exists. ``progress`` gets pages done and in all.
    """
    if target.exists():
        raise StoreError("FF-STORE-010", f"{target} exists", hint="choose another name; a backup replaces nothing")
    source = connect(path, read_only=True)
    part = target.with_name(target.name + ".part")
    _remove(part)
    try:
        with reported(part):
            copy = sqlite3.connect(part, isolation_level=None)
            try:
                # inside a reading transaction the source stands still for us: the copy need never begin again
                source.execute("BEGIN")
                source.execute("SELECT count(*) FROM sqlite_schema").fetchone()
                source.backup(
                    copy, pages=_PAGES, progress=lambda _, remaining, total: progress(total - remaining, total)
                )
                copy.execute("PRAGMA journal_mode = DELETE")
            finally:
                copy.close()
        renewal.synchronise(part)
        report = verified(part)
        os.chmod(part, 0o600)
        part.replace(target)
        renewal.synchronise(target.absolute().parent)
    finally:
        source.close()
        _remove(part)
    return Backup(target, target.stat().st_size, report)


def restore(source: Path, path: Path) -> Path | None:
    """Put a backup in the place of the store at ``path``; gives where the old one is kept, None where there was none.

    Raises StoreError FF-STORE-001 while the gateway runs, FF-STORE-009 for a backup that is not sound; then nothing has changed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = exclusive(path.with_suffix(".lock"))
    try:
        renewal.finish(path)
        fresh = path.with_name(path.name + ".new")
        _remove(fresh)
        with reported(source):
            probe = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)
            try:
                check_version(probe, source)
            finally:
                probe.close()
        shutil.copyfile(source, fresh)
        os.chmod(fresh, 0o600)
        verified(fresh)
        return renewal.put(path, fresh, "before-restore")
    finally:
        os.close(lock)


def verified(path: Path) -> Report:
    """Look at every checksum of a store that nobody else uses. Raises StoreError FF-STORE-009."""
    with Store.open(path, read_only=True) as copy:
        report = check(copy)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    if not report.sound:
        found = "; ".join([*report.file, *report.damaged][:5])
        hint = "run `fedfab gateway store check` on the store it was made of; restore an older backup"
        raise StoreError("FF-STORE-009", f"the backup is not sound: {found}", hint=hint)
    return report


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
