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

from gateway.blocks import FeatureBlock, Kind, SampleBlock
from gateway.config import Cluster, Config, End
from gateway.pipeline.ends import ClockStep, Pipeline
from gateway.pipeline.units import Line, conversion
from gateway.store import Labelling, Progress, Recipe, Store

REVISION = 2
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
        self.damaged = self._damaged()
        """Raw blocks that could not be read, and so are in no row."""

    def advance(self) -> bool:
        """Take the next page of raw blocks into the feature layer. False: there was none."""
        if not self._tracks:
            return False
        borders = {upto for track in self._tracks for upto in track.borders()}
        page = self._store.raw_blocks(self._upto, _PAGE, borders=borders)
        for raw in page:
            block = raw.samples()
            positions = block.positions()
            for track in self._tracks:
                track.add(raw.id, raw.source, block, positions)
        if not page:
            return False
        fresh: dict[str, FeatureBlock] = {}
        for track in self._tracks:
            fresh |= track.fresh(page[-1].id)
        self._store.append_all_features(fresh, page[-1].id)
        for track in self._tracks:
            track.tell()
        self.damaged = self._damaged()
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

    def _damaged(self) -> int:
        return sum(damage.layer == "raw" for damage in self._store.damage())

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
        self._ends = {end.name: end for end in ends}
        declared = {
            end.name: _declared(store, end.name, _recipe(cluster, end, line))
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

    def borders(self) -> list[int]:
        """Raw blocks that only some of them have come to, so that nothing may reach over them."""
        return [upto for upto in self._upto.tolist() if upto > self.upto]

    def tell(self) -> None:
        """Log what came in otherwise than before: types of values, clocks."""
        for notice in self.pipeline.notices():
            if isinstance(notice, ClockStep):
                log.warning(
                    "the clock of a source was set back",
                    source=notice.source,
                    end=notice.end,
                    back_s=round(notice.back_s, 1),
                    effect="its samples go on in the time it had before, until its clock has passed that",
                    hint="let the machine take its time from the plant's time server",
                )
                continue
            change = {"end": notice.end, "field": notice.field, "tag": self._ends[notice.end].tags[notice.field]}
            types = {"was": notice.old.name.lower(), "now": notice.new.name.lower()}
            if notice.new is Kind.TEXT:
                log.warning(
                    "a tag gives text now",
                    **change,
                    **types,
                    effect="text that is no number, category or run is missing in features; see the count of rule type",
                    hint='set the machine right, or give the field kind = "category" and its categories',
                )
            else:
                log.info(
                    "the type of a tag has changed", **change, **types, effect="none: its values are numbers still"
                )

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


def _declared(store: Store, end: str, recipe: Recipe) -> Progress:
    """What is there of an end's features. Says so where they have to be made again."""
    outlook = store.outlook(end, recipe.digest)
    progress = store.declare(end, recipe)
    if outlook.rows:
        log.warning(
            "features are made again",
            end=end,
            reason="its cluster, its tags, a unit or the way rows are made has changed",
            rows_before=outlook.rows,
            cannot_be_made_again=outlook.lost,
            effect="all its samples, old ones too, are read with the new settings",
        )
    return progress


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
