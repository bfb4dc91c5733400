"""The state machine of one end: samples in, in any batches, feature rows out, once each, in the order of time.

*When is a row complete?* The end's clock is the newest source time seen from any of its sources, and it only goes forward. Samples take
effect in the order of their source times, and rows close ``wait_s`` behind the clock: a sample that comes later than that cannot
change a closed row, so it takes effect from there on (unless its field has a newer one, then it is dropped). A silent source therefore
never stops the others, and since all of this depends on the order of the samples only, batches do not matter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gateway.blocks import FeatureBlock, SampleBlock
from gateway.config import Cluster, End
from gateway.pipeline.clean import RULES, Cleaner, Memory
from gateway.pipeline.convert import Conversion
from gateway.pipeline.events import NEVER, SECOND, Events
from gateway.pipeline.rows import Holding, carry, changes, means, ticks
from gateway.pipeline.units import Line


class EndPipeline:
    """Rows of one end of ``cluster``. ``lines`` converts each field from its tag's unit."""

    def __init__(self, cluster: Cluster, end: End, lines: Mapping[str, Line]) -> None:
        rule = cluster.rows
        self._names = [field.name for field in cluster.fields]
        self._tags = [tuple(end.tags[name].split("/", 1)) for name in self._names]
        self._features = [self._names.index(field.name) for field in cluster.features]
        self._averaged = [i for i in self._features if rule.method == "mean" and cluster.fields[i].kind == "number"]
        self._label = self._names.index(cluster.label.source)
        self._group = self._names.index(cluster.group) if cluster.group else None
        self._on_change = self._names.index(rule.on_change) if rule.on_change else None
        self._every = round(rule.every_s * SECOND) if rule.every_s else None
        self._wait = round(rule.wait_s * SECOND)
        self._ahead = round(rule.clock_ahead_s * SECOND)
        self._conversion = Conversion.of(cluster.fields, lines, cluster.group)
        self._holding = Holding(cluster.fields, {rule.on_change, cluster.group, cluster.label.remaining})
        self._cleaner = Cleaner(cluster.fields)
        self._clock = NEVER
        self._closed = NEVER
        self._trigger = float("nan")
        self._waiting: list[Events] = []  # not closed yet, in the order of arrival
        self._carried = Events.none()

    def add(self, source: str, block: SampleBlock, positions: Mapping[str, NDArray[np.int64]]) -> None:
        """Take the samples of this end out of a block; ``positions`` says where in the block each tag stands."""
        mine = [
            (number, positions[tag])
            for number, (origin, tag) in enumerate(self._tags)
            if origin == source and tag in positions
        ]
        if not mine:
            return
        chosen = np.concatenate([places for _, places in mine])
        field = np.repeat([number for number, _ in mine], [len(places) for _, places in mine])
        arrival = np.argsort(chosen, kind="stable")
        chosen, field = chosen[arrival], field[arrival]
        time = block.source_time[chosen]
        sane = time <= block.gateway_time[chosen] + self._ahead
        clock = np.maximum.accumulate(np.append(self._clock, np.where(sane, time, NEVER)))
        at = np.maximum(time, clock[:-1] - self._wait)
        self._clock = int(clock[-1])
        value, bad, wrong = self._conversion.values(block, chosen, field)
        for rule, hit in (("bad", bad), ("type", wrong), ("clock", ~sane)):
            self._cleaner.count(rule, field[hit])
        self._cleaner.count("samples", field)
        events = Events(field, at, time, value)
        self._waiting.append(events if sane.all() else events.part(sane))

    def close(self) -> FeatureBlock:
        """The rows that are complete by now; each is given once."""
        border = self._clock - self._wait - 1
        if self._every is not None:
            border = border // self._every * self._every
        if border <= self._closed or self._clock == NEVER:
            return self._rows(np.zeros(0, np.int64), self._carried)
        self._closed = border
        fresh = self._cleaner.clean(self._ripe(border))
        if self._on_change is not None:
            times, self._trigger = changes(fresh.of(self._on_change), self._trigger)
        else:
            times = ticks(fresh.at, self._every or SECOND)
        known = Events.join([self._carried, fresh])
        known = known.part(np.argsort(known.field, kind="stable"))
        self._carried = carry(known)
        return self._rows(times, known)

    def counts(self) -> dict[str, dict[str, int]]:
        """For each field, how many samples came and how many each rule rejected."""
        rows = self._cleaner.counts.tolist()
        return {name: dict(zip(RULES, row, strict=True)) for name, row in zip(self._names, rows, strict=True)}

    def state(self) -> str:
        """Everything that later rows depend on, for `restore`."""
        state = {
            "clock": self._clock,
            "closed": self._closed,
            "trigger": self._trigger,
            "waiting": Events.join([Events.none(), *self._waiting]).lists(),
            "carried": self._carried.lists(),
            "memory": self._cleaner.memory.lists(),
            "counts": self._cleaner.counts.tolist(),
        }
        return json.dumps(state, separators=(",", ":"))

    def restore(self, state: str) -> None:
        """Go on where `state` was taken."""
        data = json.loads(state)
        self._clock, self._closed, self._trigger = data["clock"], data["closed"], data["trigger"]
        self._waiting = [Events.from_lists(data["waiting"])]
        self._carried = Events.from_lists(data["carried"])
        self._cleaner.memory = Memory.from_lists(data["memory"])
        self._cleaner.counts = np.array(data["counts"], np.int64)

    def _ripe(self, border: int) -> Events:
        """Take the events up to the border out of what waits, in order."""
        waiting = Events.join([Events.none(), *self._waiting])
        ripe = waiting.at <= border
        self._waiting = [] if ripe.all() else [waiting.part(~ripe)]
        events = waiting.part(ripe)
        return events.part(
            np.lexsort((events.at, events.field))
        )  # stable: of equal ones, the first to arrive comes first

    def _rows(self, times: NDArray[np.int64], events: Events) -> FeatureBlock:
        cells = self._holding.cells(events, times)
        for number in self._averaged:
            mean = means(events.of(number), times, self._every or SECOND)
            cells[number] = np.where(np.isnan(mean), cells[number], mean)
        group = np.zeros(len(times)) if self._group is None else cells[self._group]
        return FeatureBlock(time=times, x=cells[self._features].T, group=group, label=cells[self._label])
