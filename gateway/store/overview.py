"""A store at a glance: what each source, end and model has in it, since when, and what was lost of it."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict
from typing import Any

from gateway.store.store import Store

_SPANS = {
    "raw": "SELECT name, min(first), max(last) FROM raw JOIN source ON source.id = raw.source GROUP BY name",
    "features": "SELECT name, min(first), max(last) FROM feature JOIN ends ON ends.id = end_id GROUP BY name",
    "results": "SELECT model, min(time), max(time) FROM result GROUP BY model",
}


def overview(store: Store) -> dict[str, Any]:
    """Layers, times (ns since the epoch), losses, files set aside. JSON-serialisable."""

    def spans(db: sqlite3.Connection) -> dict[tuple[str, str], tuple[int, int]]:
        rows = [(layer, *row) for layer, query in _SPANS.items() for row in db.execute(query)]
        return {(layer, name): (first, last) for layer, name, first, last in rows}

    times = store.file.read(spans)
    path = store.file.path
    held = []
    for layer, names in store.amounts().items():
        for name, amounts in sorted(names.items()):
            first, last = times.get((layer, name), (None, None))
            held.append(
                {
                    "layer": layer,
                    "of": name,
                    "entries": amounts.entries,
                    "blocks": amounts.blocks,
                    "bytes": amounts.bytes,
                    "first": first,
                    "last": last,
                    "dropped": amounts.dropped_entries,
                    "unprepared": amounts.unprepared,
                    "damaged": amounts.damaged_entries,
                }
            )
    aside = [place for what in ("damaged", "before-restore") for place in path.parent.glob(f"{path.name}.{what}-*")]
    return {
        "path": str(path),
        "file_bytes": store.file.size(),
        "held": held,
        "damage": [asdict(damage) for damage in store.damage()],
        "aside": sorted(str(place) for place in aside if not place.name.endswith(("-wal", "-shm"))),
    }
