"""One SQLite file in WAL mode: a writer in the daemon, any number of readers in other processes.

Batches are kept as one checksummed block each, not as a row for each sample: that is what makes it fast. The raw layer is written
with ``synchronous=FULL``, because its source may forget a batch once `Store.append_raw` has returned; what lies above it can be
computed again, so it is written with NORMAL: whole after a crash, perhaps a little behind after a power cut, and then caught up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from connectors.contract import Sample
from gateway.blocks import FeatureBlock
from gateway.errors import StoreFullError
from gateway.store import tally
from gateway.store.damage import Finder, Lost
from gateway.store.features import FeatureLayer
from gateway.store.file import File
from gateway.store.raw import Encoded, RawLayer
from gateway.store.records import Damage, Outlook, Progress, RawBatch, RawBlock, Recipe, Result
from gateway.store.results import ResultLayer
from gateway.store.tally import Amounts, LayerName
from models.dataset import Rows

LAYERS: tuple[LayerName, ...] = ("raw", "features", "results")

_EARLIEST, _LATEST = -(2**63), 2**63 - 1


class Store:
    """Raw, feature and result layer of one gateway. Methods may be called from any thread; all raise StoreError."""

    def __init__(self, file: File, now: Callable[[], int]) -> None:
        self.file = file
        self.finder = Finder(file, now)
        self.raw_layer = RawLayer(file, self.finder, now)
        self.feature_layer = FeatureLayer(file, self.finder, now)
        self.result_layer = ResultLayer(file, self.finder)
        self.full: str | None = None
        """Why no samples are taken at the moment; set by `gateway.store.upkeep`."""

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False, now: Callable[[], int] = time.time_ns) -> Self:
        """Open the store, or create it. There is one writer at a time; readers come and go as they like.

        A store of an earlier fedfab is brought up to date; of a damaged file everything readable is carried into a new one.
        """
        return cls(File(path, read_only=read_only), now)

    def close(self) -> None:
        """Close; twice is harmless."""
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # raw layer

    def append_raw(self, source: str, samples: Sequence[Sample], cursor: str | None) -> int:
        """Keep a batch, and the cursor behind it, in one transaction. On disk when this returns. Gives the block's number."""
        return self.append_raw_many([RawBatch(source, samples, cursor)])[0]

    def append_raw_many(self, batches: Sequence[RawBatch]) -> list[int]:
        """Keep several batches, and the cursors behind them, in one transaction: all or none is on disk when this returns.

        A commit costs a wait for the disk (milliseconds), whatever it carries: one writer that takes all batches that wait keeps
        several times more than one that commits each. Gives the blocks' numbers, in order. Raises StoreFullError.
        """
        if self.full is not None:
            hint = "raise store.raw.max_gb, choose another store.raw.when_full, or make room on the disk"
            raise StoreFullError("FF-STORE-007", f"no new samples are taken: {self.full}", hint=hint)
        return self.raw_layer.append([Encoded.of(batch) for batch in batches])

    def cursor(self, source: str) -> str | None:
        """Where reading this source goes on; None if it was never read, or has no cursor. Kept when its samples are dropped."""
        return self.raw_layer.cursor(source)

    def raw_blocks(self, after: int, limit: int = 256, *, borders: Collection[int] | None = None) -> list[RawBlock]:
        """The next blocks in the order of arrival, those numbered above ``after``; empty when there are none.

        With ``borders`` blocks of one source that follow each other and were merged come as one, which is quicker to work with;
        one that would reach over a number in ``borders`` is divided there.
        """
        return self.raw_layer.blocks(after, limit, borders)

    def last_raw(self) -> int:
        """Number of the newest raw block there ever was, 0 when there was none."""
        return self.raw_layer.last()

    def read_raw(
        self, source: str, *, tags: Collection[str] | None = None, since: int = _EARLIEST, until: int = _LATEST
    ) -> list[Sample]:
        """Samples of a source with ``since <= source_time < until``, ordered by source time, then by arrival."""
        samples = [
            sample
            for block in self.raw_layer.read(source, since, until)
            for sample in block.samples()
            if since <= sample.source_time < until and (tags is None or sample.tag in tags)
        ]
        return sorted(samples, key=lambda sample: sample.source_time)

    # feature layer

    def declare(self, end: str, recipe: Recipe) -> Progress:
        """Say what an end's features are made with; gives how far they have come.

        If that is new, the progress is zero. The rows of the recipe before are dropped, since they can be made again, should it come
        back; where they cannot, because samples they were made of are gone, they are set aside until retention drops them, first of
        all, or until that recipe comes back and finds them.
        """
        return self.feature_layer.declare(end, recipe)

    def outlook(self, end: str, digest: str) -> Outlook:
        """What `declare` with a recipe of this digest would do to the rows an end has now: nothing if it is the one in use."""
        return self.feature_layer.outlook(end, digest)

    def forget_features(self, end: str) -> None:
        """Drop an end's progress and its rows, to make them again; rows that cannot be made again stay. So does the raw layer."""
        self.feature_layer.forget(end)

    def append_features(self, end: str, block: FeatureBlock) -> None:
        """Keep rows of a declared end, later than all it has."""
        self.append_all_features({end: block})

    def append_all_features(self, blocks: Mapping[str, FeatureBlock], upto: int = 0) -> None:
        """Keep rows of several ends in one transaction; ``upto``: number of the raw block they were made up to."""
        self.feature_layer.append(blocks, upto)

    def save_progress(self, progress: Mapping[str, Progress]) -> None:
        """Keep how far each of these ends has come."""
        self.feature_layer.save_progress(progress)

    def last_time(self, end: str) -> int:
        """Time of an end's newest row; the least possible when there is none."""
        return self.feature_layer.last_time(end)

    def features(self, end: str, *, until: int | None = None) -> Rows:
        """All feature rows of an end in the order of time, with their labels; none when it has none yet.

        With ``until`` only those not later, labelled as if nothing had come after them: whenever it is asked, the answer is the same.
        """
        return self.feature_layer.rows(end, until)

    def latest(self, end: str, n: int) -> Rows:
        """The newest ``n`` feature rows of an end, or as many as there are: none before its preparation has begun."""
        return self.feature_layer.latest(end, n)

    def latest_at_hand(self, end: str, n: int) -> Rows | None:
        """`latest` where the rows are in memory, without waiting for anything; None where they have to be read."""
        return self.feature_layer.latest_at_hand(end, n)

    # result layer

    def append_results(self, results: Sequence[Result]) -> None:
        """Keep predictions that were given."""
        self.result_layer.append(results)

    def results(self, *, end: str | None = None, since: int = _EARLIEST, limit: int = 1000) -> list[Result]:
        """Predictions given since a time, oldest first."""
        return self.result_layer.since(since, end, limit)

    def set_aside(self, block: RawBlock, problem: str) -> None:
        """Move a raw block out of the way that could be read, but made no sense."""
        stored = block.stored
        self.finder.set_aside("raw", block.source, Lost(stored.number, stored.count, stored.data), problem)

    # what it holds

    def rows(self) -> dict[str, tuple[int, int]]:
        """How many feature rows each end has, and the time of its newest; an end without rows is absent."""
        amounts = self.amounts()["features"]
        return {end: (amounts[end].entries, newest) for end, newest in self.feature_layer.newest().items()}

    def counts(self) -> dict[str, dict[str, int]]:
        """Samples of each source, rows of each end, results of each model."""
        return {
            layer: {name: held.entries for name, held in names.items() if held.entries}
            for layer, names in self.amounts().items()
        }

    def amounts(self) -> dict[LayerName, dict[str, Amounts]]:
        """For each layer and source, end or model: what it holds, what was dropped, what was damaged. Costs no reading of blocks."""
        return self.file.read(lambda db: {layer: tally.amounts(db, layer) for layer in LAYERS})

    def damage(self) -> list[Damage]:
        """Blocks that were found damaged and set aside, oldest first."""
        return self.finder.found()

    def sources(self) -> Iterable[str]:
        """Names of all sources that were ever read."""
        return self.file.read(lambda db: [name for (name,) in db.execute("SELECT name FROM source ORDER BY name")])
