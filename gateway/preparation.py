"""Local preparation (clause 8.4): brings the feature layer up to the raw layer, block by block, in the order of arrival.

Live work and re-computation are the same thing: the daemon calls `Preparation.advance` after each batch, a restart catches up from the
last checkpoint, and a changed configuration starts again from the first raw block. So a row never depends on when it was made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import structlog

from gateway.blocks import FeatureBlock
from gateway.config import Cluster, Config, End
from gateway.errors import StoreError
from gateway.pipeline.end import EndPipeline
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
        self._tracks = [_Track(config.cluster(end.cluster), end, units, store) for end in config.ends]
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
                if raw.id > track.upto:
                    track.pipeline.add(raw.source, block, positions)
        if not page:
            return False
        self._store.append_all_features({track.name: track.fresh(page[-1].id) for track in self._tracks})
        if self._upto - self._kept >= _CHECKPOINT:
            self.checkpoint()
        return True

    def checkpoint(self) -> None:
        """Keep the state, so that the next start need not go through these raw blocks again."""
        self._store.save_progress({track.name: Progress(track.upto, track.pipeline.state()) for track in self._tracks})
        self._kept = self._upto

    def counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """For each end and field, how many samples came and how many each cleaning rule rejected."""
        return {track.name: track.pipeline.counts() for track in self._tracks}

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
    """One end: its pipeline, up to which raw block it has come, and the newest row that is stored."""

    def __init__(self, cluster: Cluster, end: End, units: Mapping[str, str], store: Store) -> None:
        lines = _lines(cluster, end, units)
        progress = store.declare(end.name, _recipe(cluster, end, lines))
        self.name = end.name
        self.upto = progress.upto
        self.pipeline = EndPipeline(cluster, end, lines)
        self._last = store.last_time(end.name)
        if progress.state:
            self.pipeline.restore(progress.state)

    def fresh(self, upto: int) -> FeatureBlock:
        """Rows that are complete now, without those that were stored before a restart."""
        self.upto = max(self.upto, upto)
        block = self.pipeline.close().after(self._last)
        if len(block):
            self._last = int(block.time[-1])
        return block


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
