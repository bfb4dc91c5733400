"""Local preparation (clause 8.4): brings the feature layer up to the raw layer, block by block, in the order of arrival.

Live work and re-computation are the same thing: the daemon calls `Preparation.advance` after each batch, a restart catches up from the
last checkpoint, and a changed configuration starts again from the first raw block. So a row never depends on when it was made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
import structlog
from numpy.typing import NDArray

from gateway.blocks import FeatureBlock, SampleBlock
from gateway.config import Cluster, Config, End
from gateway.errors import StoreError
from gateway.pipeline.ends import Pipeline
from gateway.pipeline.units import Line, conversion
from gateway.store import Labelling, Progress, Recipe, Store

REVISION = 1
"""Of the pipeline's arithmetic: rows of another revision are made again."""

_PAGE = 256  # raw blocks taken at once
_CHECKPOINT = 2048  # raw blocks after which the state is kept; a restart looks at no more than these again

log = structlog.get_logger(__name__)


class Preparation:
    """The pipelines of all ends over one store. Not for two threads at once. Raises StoreError."""

    def __init__(self, config: Config, store: Store) -> None:
        self._store = store
        units = {f"{source.name}/{tag.name}": tag.unit for source in config.sources for tag in source.tag}
        self._tracks = [
            _Track(cluster, ends, units, store) for cluster in config.clusters if (ends := config.ends_of(cluster.name))
        ]
        self._kept = self._upto
        self.damaged = 0
        """Raw blocks that could not be read, and so are in no row."""

    def advance(self) -> bool:
        """Take the next page of raw blocks into the feature layer. False: there was none."""
        if not self._tracks:
            return False
        page = self._store.raw_blocks(self._upto, _PAGE)
        for raw in page:
            try:
                block = raw.samples()
            except StoreError as error:
                self.damaged += 1
                log.error("raw block left out of the features", code=error.code, problem=error.message)
                continue
            positions = block.positions()
            for track in self._tracks:
                track.add(raw.id, raw.source, block, positions)
        if not page:
            return False
        fresh: dict[str, FeatureBlock] = {}
        for track in self._tracks:
            fresh |= track.fresh(page[-1].id)
        self._store.append_all_features(fresh)
        if self._upto - self._kept >= _CHECKPOINT:
            self.checkpoint()
        return True

    def checkpoint(self) -> None:
        """Keep the state, so that the next start need not go through these raw blocks again."""
        for track in self._tracks:
            self._store.save_progress(track.progress())
        self._kept = self._upto

    def counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """For each end and field, how many samples came and how many each cleaning rule rejected."""
        return {end: counts for track in self._tracks for end, counts in track.pipeline.counts().items()}

    @property
    def _upto(self) -> int:
        return min((track.upto for track in self._tracks), default=0)


def rebuild(config: Config, store: Store) -> Preparation:
    """Make all features again from the raw layer."""
    for end in config.ends:
        store.forget_features(end.name)
    preparation = Preparation(config, store)
    while preparation.advance():
        pass
    preparation.checkpoint()
    return preparation


class _Track:
    """The ends of one cluster: their pipeline, up to which raw block each has come, and the newest row that is stored of it."""

    def __init__(self, cluster: Cluster, ends: Sequence[End], units: Mapping[str, str], store: Store) -> None:
        lines = [_lines(cluster, end, units) for end in ends]
        self._names = [end.name for end in ends]
        declared = {
            end.name: store.declare(end.name, _recipe(cluster, end, line))
            for end, line in zip(ends, lines, strict=True)
        }
        self._upto = np.array([progress.upto for progress in declared.values()], np.int64)
        self._last = {name: store.last_time(name) for name in self._names}
        self.pipeline = Pipeline(cluster, ends, lines)
        self.pipeline.restore({name: progress.state for name, progress in declared.items()})

    @property
    def upto(self) -> int:
        """The raw block that all of them have come to."""
        return int(self._upto.min())

    def add(self, number: int, source: str, block: SampleBlock, positions: Mapping[str, NDArray[np.intp]]) -> None:
        """Give raw block ``number`` to the ends that have not had it."""
        behind = self._upto < number
        if behind.any():
            self.pipeline.add(source, block, positions, None if behind.all() else behind)

    def fresh(self, upto: int) -> dict[str, FeatureBlock]:
        """Rows that are complete now, without those that were stored before a restart."""
        self._upto = np.maximum(self._upto, upto)
        fresh = {}
        for name, rows in self.pipeline.close().items():
            new = rows.after(self._last[name])
            if len(new):
                self._last[name] = int(new.time[-1])
                fresh[name] = new
        return fresh

    def progress(self) -> dict[str, Progress]:
        """How far each end has come."""
        upto = dict(zip(self._names, self._upto.tolist(), strict=True))
        return {name: Progress(upto[name], state) for name, state in self.pipeline.states().items()}


def _lines(cluster: Cluster, end: End, units: Mapping[str, str]) -> dict[str, Line]:
    """How each field is converted from its tag's unit. The configuration was checked: all of them can be."""
    lines = {}
    for field in cluster.fields:
        line = conversion(units[end.tags[field.name]], field.unit)
        if line is None:
            raise ValueError(f'field "{field.name}" of end "{end.name}" cannot be converted')
        lines[field.name] = line
    return lines


def _recipe(cluster: Cluster, end: End, lines: Mapping[str, Line]) -> Recipe:
    ingredients = [REVISION, cluster.model_dump(mode="json"), end.tags, lines]
    return Recipe(
        digest=hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest(),
        fields=tuple(field.name for field in cluster.features),
        labelling=Labelling("field" if cluster.label.field else "remaining", cluster.label.cap),
    )
