"""The state machine of one end: samples in, in any batches, feature rows out, once each, in the order of time.

*When is a row complete?* The end's clock is the newest source time seen from any of its sources, and it only goes forward. Samples take
effect in the order of their source times, and rows close ``wait_s`` behind the clock: a sample that comes later than that cannot
change a closed row, so it takes effect from there on (unless its field has a newer one, then it is dropped). A silent source therefore
never stops the others, and since all of this depends on the order of the samples only, batches do not matter.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from gateway.blocks import FeatureBlock, SampleBlock
from gateway.config import Cluster, ClusterField, End
from gateway.pipeline.clean import NEVER, RULES, SECOND, Events, Memory, clean
from gateway.pipeline.convert import convert
from gateway.pipeline.rows import changes, held, mean, ticks
from gateway.pipeline.units import Line


@dataclass(slots=True)
class _Column:
    """One field on its way."""

    rules: ClusterField
    line: Line
    waiting: list[Events] = field(default_factory=list)
    """Not yet closed, in the order of arrival."""
    carried: Events = field(default_factory=Events.none)
    """The last good event, and the missing one behind it if there is one."""
    memory: Memory = field(default_factory=Memory)
    counts: Counter[str] = field(default_factory=Counter)


class EndPipeline:
    """Rows of one end of ``cluster``. ``lines`` converts each field from its tag's unit."""

    def __init__(self, cluster: Cluster, end: End, lines: Mapping[str, Line]) -> None:
        rule = cluster.rows
        self._cluster = cluster
        self._tags = {name: tuple(reference.split("/", 1)) for name, reference in end.tags.items()}
        self._columns = {each.name: _Column(each, lines[each.name]) for each in cluster.fields}
        self._wait = round(rule.wait_s * SECOND)
        self._ahead = round(rule.clock_ahead_s * SECOND)
        self._every = round(rule.every_s * SECOND) if rule.every_s else None
        self._clock = NEVER
        self._closed = NEVER
        self._trigger = float("nan")

    def add(self, source: str, block: SampleBlock, positions: Mapping[str, NDArray[np.intp]]) -> None:
        """Take the samples of this end out of a block; ``positions`` says where in the block each tag stands."""
        mine = {
            name: positions[tag] for name, (origin, tag) in self._tags.items() if origin == source and tag in positions
        }
        if not mine:
            return
        order = np.unique(np.concatenate(list(mine.values())))  # of arrival
        time = block.source_time[order]
        sane = time <= block.gateway_time[order] + self._ahead
        clock = np.maximum.accumulate(np.concatenate([[self._clock], np.where(sane, time, NEVER)]))
        at = np.maximum(time, clock[:-1] - self._wait)
        self._clock = int(clock[-1])
        for name, chosen in mine.items():
            column = self._columns[name]
            here = np.searchsorted(order, chosen)
            value, rejected = convert(block, chosen, column.rules, column.line, names=name == self._cluster.group)
            events = Events(at[here], time[here], value)
            column.counts.update(rejected, samples=len(chosen), clock=int((~sane[here]).sum()))
            column.waiting.append(events if sane.all() else events.part(sane[here]))

    def close(self) -> FeatureBlock:
        """The rows that are complete by now; each is given once."""
        border = self._clock - self._wait - 1
        if self._every is not None:
            border = border // self._every * self._every
        if border <= self._closed or self._clock == NEVER:
            return self._block(np.zeros(0, np.int64), {name: Events.none() for name in self._columns})
        self._closed = border
        fresh = {name: self._settle(column, border) for name, column in self._columns.items()}
        if self._every is not None:
            times = ticks(list(fresh.values()), self._every)
        else:
            trigger = fresh[self._cluster.rows.on_change or ""]
            times = changes(trigger, self._trigger)
            good = trigger.value[~np.isnan(trigger.value)]
            self._trigger = float(good[-1]) if len(good) else self._trigger
        known = {name: Events.join([column.carried, fresh[name]]) for name, column in self._columns.items()}
        for name, column in self._columns.items():
            column.carried = _carry(known[name])
        return self._block(times, known)

    def counts(self) -> dict[str, dict[str, int]]:
        """For each field, how many samples came and how many each rule rejected."""
        return {
            name: {what: column.counts[what] for what in ("samples", *RULES)} for name, column in self._columns.items()
        }

    def state(self) -> str:
        """Everything that later rows depend on, for `restore`."""
        columns = {
            name: {
                "waiting": _listed(Events.join([Events.none(), *column.waiting])),
                "carried": _listed(column.carried),
                "memory": asdict(column.memory),
                "counts": column.counts,
            }
            for name, column in self._columns.items()
        }
        state = {"clock": self._clock, "closed": self._closed, "trigger": self._trigger, "columns": columns}
        return json.dumps(state, separators=(",", ":"))

    def restore(self, state: str) -> None:
        """Go on where `state` was taken."""
        data = json.loads(state)
        self._clock, self._closed, self._trigger = data["clock"], data["closed"], data["trigger"]
        for name, column in self._columns.items():
            saved = data["columns"][name]
            column.waiting = [_events(saved["waiting"])]
            column.carried = _events(saved["carried"])
            column.memory = Memory(**saved["memory"])
            column.counts = Counter(saved["counts"])

    def _settle(self, column: _Column, border: int) -> Events:
        """Take the events up to the border out of what waits, and clean them."""
        if not column.waiting:
            return Events.none()
        waiting = Events.join(column.waiting)
        ripe = waiting.at <= border
        column.waiting = [] if ripe.all() else [waiting.part(~ripe)]
        events = waiting.part(ripe)
        return clean(column.rules, events.part(np.argsort(events.at, kind="stable")), column.memory, column.counts)

    def _block(self, times: NDArray[np.int64], events: Mapping[str, Events]) -> FeatureBlock:
        cluster = self._cluster
        x = np.empty((len(times), len(cluster.features)))
        for i, feature in enumerate(cluster.features):
            if self._every is not None and cluster.rows.method == "mean" and feature.kind == "number":
                x[:, i] = mean(events[feature.name], times, self._every, feature)
            else:
                x[:, i] = held(events[feature.name], times, feature)
        label = cluster.field(cluster.label.source)
        counting = label.name == cluster.label.remaining
        return FeatureBlock(
            time=times,
            x=x,
            group=held(events[cluster.group], times, None) if cluster.group else np.zeros(len(times)),
            label=held(events[label.name], times, None if counting else label),
        )


def _carry(events: Events) -> Events:
    if not len(events):
        return events
    good = np.flatnonzero(~np.isnan(events.value))
    last = len(events) - 1
    kept = good[-1:] if len(good) and good[-1] == last else np.append(good[-1:], last)
    return events.part(kept)


def _listed(events: Events) -> list[list[float]]:
    return [events.at.tolist(), events.time.tolist(), events.value.tolist()]


def _events(columns: list[list[float]]) -> Events:
    at, time, value = columns
    return Events(np.array(at, np.int64), np.array(time, np.int64), np.array(value, np.float64))
