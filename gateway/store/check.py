"""Every checksum of a store verified, and what is there compared with what was counted."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gateway.blocks import FeatureBlock, SampleBlock
from gateway.store import tally
from gateway.store.codec import decode_features, decode_samples
from gateway.store.damage import Lost
from gateway.store.file import File
from gateway.store.records import Stored
from gateway.store.store import LAYERS, Store
from gateway.store.tally import LayerName

_PAGE = 64  # blocks read at once

_BLOCKS: dict[LayerName, str] = {
    "raw": "SELECT source.name, first, last, 'raw', raw.id, count, raw.crc, data FROM raw"
    " LEFT JOIN source ON source.id = raw.source WHERE raw.id > ? ORDER BY raw.id LIMIT ?",
    "features": "SELECT ends.name, first, last, 'features', feature.id, count, feature.crc, data FROM feature"
    " LEFT JOIN ends ON ends.id = end_id WHERE feature.id > ? ORDER BY feature.id LIMIT ?",
}


@dataclass
class Report:
    """What was found. A store is sound when there are no problems."""

    blocks: int = 0
    bytes: int = 0
    damaged: list[str] = field(default_factory=list)
    """Blocks that are not what was written, now set aside if the store may be written."""
    file: list[str] = field(default_factory=list)
    """What is wrong with the file beyond single blocks."""

    @property
    def sound(self) -> bool:
        """Whether everything is what was written."""
        return not self.damaged and not self.file


def check(store: Store, progress: Callable[[int, int], None] = lambda done, total: None) -> Report:
    """Verify the file's structure, every block, and the counts. ``progress`` gets bytes done and in all. Raises StoreError.

    A writable store sets damaged blocks aside; where the file itself is damaged it is renewed, as if a reader had met the damage.
    """
    report = Report()
    renewed = store.file.renewed
    report.file += _structure(store.file)
    total = sum(held.bytes for names in store.amounts().values() for held in names.values())
    for layer in _BLOCKS:
        for name, stored, problem in _blocks(store.file, layer):
            report.blocks += 1
            report.bytes += len(stored.data) if isinstance(stored.data, bytes) else 0
            if problem is not None:
                report.damaged.append(f"block {stored.number} of the {layer} layer ({name}): {problem}")
                if not store.file.read_only:
                    store.finder.set_aside(layer, name, Lost(stored.number, stored.count, stored.data), problem)
            progress(report.bytes, total)
    report.damaged += store.result_layer.verify()
    report.file += _counts(store)
    if store.file.renewed > renewed:
        report.file.append("the file was damaged and has been set aside; a new one holds what could be read")
    return report


def _structure(file: File) -> list[str]:
    found = [str(row[0]) for row in file.read(lambda db: db.execute("PRAGMA integrity_check(20)").fetchall())]
    if found == ["ok"]:
        return []
    if not file.read_only:
        file.renew("; ".join(found))
    return found


def _blocks(file: File, layer: LayerName) -> Iterator[tuple[str, Stored, str | None]]:
    after = 0
    while True:
        rows = file.read(lambda db, after=after: db.execute(_BLOCKS[layer], (after, _PAGE)).fetchall())  # type: ignore[misc]
        for name, first, last, *columns in rows:
            stored = Stored(*columns)
            yield name or "", stored, _problem(layer, name, first, last, stored)
        if not rows:
            return
        after = rows[-1][4]


def _problem(layer: LayerName, name: str | None, first: object, last: object, stored: Stored) -> str | None:
    problem = stored.problem()
    if problem is not None:
        return problem
    header = stored.header
    owner = header.source if layer == "raw" else header.end
    if name is None or owner != name.partition("@")[0]:
        return f'it is a block of "{owner}", filed under "{name}"'
    if (header.first, header.last) != (first, last):
        return f"it begins at {header.first} and ends at {header.last}, filed under {first} and {last}"
    try:
        block: SampleBlock | FeatureBlock = (
            decode_samples(stored.data) if layer == "raw" else decode_features(stored.data)
        )
    except ValueError as error:
        return str(error)
    return None if len(block) == stored.count else f"it holds {len(block)} entries, expected {stored.count}"


def _counts(store: Store) -> list[str]:
    """What is counted, but not there, or the other way round."""

    def work(db: sqlite3.Connection) -> list[str]:
        wrong = []
        for layer in LAYERS:
            for name, said in tally.amounts(db, layer).items():
                found = tally.counted(db, layer, name)
                if found[:2] != said[:2]:
                    wrong.append(
                        f"{layer} of {name}: {said.entries} entries in {said.blocks} blocks were counted, "
                        f"{found.entries} in {found.blocks} are there"
                    )
        return wrong

    wrong = store.file.read(work)
    if wrong and not store.file.read_only:
        store.file.renew("; ".join(wrong))
    return wrong
