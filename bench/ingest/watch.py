"""What reaches the durable store, seen from outside while the daemon writes it: how much, how late, what is missing."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Self

import numpy as np

from gateway.store import Store

LOOK_S = 0.02
"""Between two looks at the store: the latency is that much too long at most."""


class Watch:
    """`with Watch(store.db) as watch:` follows the raw layer in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self._store = Store.open(path, read_only=True)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._latencies: list[np.ndarray] = []
        self._values: Counter[tuple[str, float]] = Counter()
        self._upto = 0
        self.stored = 0
        """Values seen in the store up to now."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._store.close()

    def until(self, values: int, patience_s: float) -> bool:
        """Wait until so many are stored; False if for ``patience_s`` nothing came any more."""
        last, since = self.stored, time.monotonic()
        while self.stored < values:
            time.sleep(LOOK_S)
            if self.stored != last:
                last, since = self.stored, time.monotonic()
            elif time.monotonic() - since > patience_s:
                return False
        return True

    def forget_latencies(self) -> None:
        """Count anew from here on."""
        self._latencies = []

    def latencies_ms(self) -> dict[str, float]:
        """Source time to stored, of every value since."""
        found = np.concatenate(self._latencies or [np.zeros(1)])
        return {name: round(float(np.percentile(found, q)) / 1e6, 1) for name, q in (("p50", 50), ("p99", 99))}

    def lost_and_doubled(self, tags: int, changes: int) -> tuple[int, int]:
        """Of ``changes`` in turn (-1 of each tag, then -2 of each, ...) how many never came, and how many came again."""
        rounds, rest = divmod(changes, tags)
        wanted = {(f"t{i}", -1.0 - turn) for i in range(tags) for turn in range(rounds + (i < rest))}
        lost = sum(key not in self._values for key in wanted)
        return lost, sum(n - 1 for (_, value), n in self._values.items() if value < 0)

    def rows(self) -> int:
        """Feature rows of all ends."""
        return sum(count for count, _ in self._store.rows().values())

    def _follow(self) -> None:
        while not self._end.wait(LOOK_S):
            blocks = self._store.raw_blocks(self._upto, 256)
            now = time.time_ns()
            for raw in blocks:
                block = raw.samples()
                self._latencies.append(now - block.source_time)
                self._values.update(
                    zip([block.tags[tag] for tag in block.tag.tolist()], block.number.tolist(), strict=True)
                )
                self.stored += len(block)
                self._upto = raw.id
