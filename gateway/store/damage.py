"""Damaged blocks: set aside once, with the reason, counted and told; what reads goes on with the others."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import structlog

from gateway.store import tally
from gateway.store.file import File
from gateway.store.records import Damage, Stored
from gateway.store.tally import LayerName

log = structlog.get_logger(__name__)

_KEPT = 64_000_000  # bytes of damaged blocks kept for a look at them; of later ones only the count
TABLE: Mapping[LayerName, str] = {"raw": "raw", "features": "feature", "results": "result"}


class Lost(NamedTuple):
    """A damaged block: its number, how many entries it held, what is left of it."""

    number: int
    entries: int
    data: bytes


class Finder:
    """Tells sound blocks from damaged ones. A store that only reads leaves damaged blocks where they are, and leaves them out."""

    def __init__(self, file: File, now: Callable[[], int] = time.time_ns) -> None:
        self._file = file
        self._now = now
        self.skipped: set[tuple[str, int]] = set()
        """Layer and number of damaged blocks that a reader left out."""

    def sound(self, layer: LayerName, blocks: Iterable[tuple[str, Stored]]) -> list[Stored]:
        """The sound ones of ``blocks`` (source or end, block). The others are set aside."""
        kept = []
        for name, stored in blocks:
            problem = stored.problem() or _foreign(name, stored)
            if problem is None:
                kept.append(stored)
            else:
                self.set_aside(layer, name, Lost(stored.number, stored.count, stored.data), problem)
        return kept

    def set_aside(self, layer: LayerName, name: str, block: Lost, problem: str) -> None:
        """Move one block out of its layer, unless that was done before. A store that only reads leaves it, and says so once."""
        number, entries, data = block
        told = {"code": "FF-STORE-003", "layer": layer, "of": name, "block": number, "problem": problem}
        if self._file.read_only:
            if (layer, number) not in self.skipped:
                self.skipped.add((layer, number))
                log.warning("damaged block left out", **told)
            return
        entries = entries if isinstance(entries, int) else 0  # a damaged row may hold anything

        def work(db: sqlite3.Connection) -> bool:
            if not db.execute(f"DELETE FROM {TABLE[layer]} WHERE id = ?", (number,)).rowcount:  # noqa: S608
                return False
            (kept,) = db.execute("SELECT coalesce(sum(length(data)), 0) FROM damaged").fetchone()
            row = (layer, name, number, entries, problem, self._now(), data if kept < _KEPT else None)
            db.execute(
                "INSERT INTO damaged (layer, name, block, entries, reason, found, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            tally.damaged(db, layer, name, entries)
            return True

        if self._file.write(work):
            log.error("damaged block set aside", entries=entries, **told)

    def found(self) -> list[Damage]:
        """All blocks that were ever set aside, oldest first."""
        query = "SELECT layer, name, block, entries, reason, found FROM damaged ORDER BY id"
        return [Damage(*row) for row in self._file.read(lambda db: db.execute(query).fetchall())]


def _foreign(name: str, stored: Stored) -> str | None:
    """Why a block is not one of this source or end, if it says so itself."""
    owner = stored.header.source or stored.header.end
    return None if owner is None or owner == name.partition("@")[0] or not name else f'it is a block of "{owner}"'
