"""The newest rows of ends in memory, so that a prediction from the latest window reads nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from gateway.blocks import FeatureBlock
from gateway.store import codec
from gateway.store.records import Recipe

_TAIL = 4096  # rows of an end kept in memory at most


class Tails:
    """The newest rows of ends that are asked for them again and again, in memory: as many as were ever asked for at once."""

    def __init__(self) -> None:
        self._tails: dict[str, tuple[int, Recipe, FeatureBlock]] = {}
        self._changing = threading.Lock()
        self.generation = 0

    def get(self, end: str, n: int) -> tuple[Recipe, FeatureBlock] | None:
        """Recipe and newest rows of an end: at least ``n``, or all there are. None: not in memory."""
        tail = self._tails.get(end)
        return None if tail is None or tail[0] < n else tail[1:]

    def put(self, end: str, n: int, rows: tuple[Recipe, FeatureBlock], generation: int) -> None:
        """Keep what was read, unless something has changed since ``generation``."""
        with self._changing:
            if generation == self.generation and n <= _TAIL:
                self._tails[end] = n, rows[0], _newest(rows[1], n)

    def append(self, blocks: Mapping[str, FeatureBlock]) -> None:
        """Rows that have been stored."""
        with self._changing:
            self.generation += 1
            for end, block in blocks.items():
                tail = self._tails.get(end)
                if tail is not None and len(block):
                    self._tails[end] = tail[0], tail[1], _newest(codec.join_features([tail[2], block]), tail[0])

    def forget(self, ends: Iterable[str]) -> None:
        """What was stored of these has changed otherwise."""
        with self._changing:
            self.generation += 1
            for end in ends:
                self._tails.pop(end, None)


def _newest(block: FeatureBlock, n: int) -> FeatureBlock:
    return block.part(max(0, len(block) - n), len(block))
