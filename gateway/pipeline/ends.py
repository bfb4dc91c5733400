"""The state machine of a cluster's ends: samples in, in any batches, feature rows out, once each, in the order of time.

*When is a row complete?* An end's clock is the newest source time seen from any of its sources, and it only goes forward. Samples take
effect in the order of their source times, and rows close ``wait_s`` behind the clock: a sample that comes later than that cannot
change a closed row, so it takes effect from there on (unless its field has a newer one, then it is dropped). A silent source therefore
never stops the others, and since all of this depends on the order of the samples only, batches do not matter.

Ends share nothing but the passes of numpy, which cost the same for one end as for a hundred.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.blocks import FeatureBlock, Kind, SampleBlock
from gateway.config import Cluster, End
from gateway.pipeline.clean import RULES, Cleaner
from gateway.pipeline.clocks import SourceClock
from gateway.pipeline.convert import Conversion
from gateway.pipeline.events import NEVER, SECOND, Events, highest_before, lasts
from gateway.pipeline.rows import Holding, Moments, carry, changes, means, ticks
from gateway.pipeline.units import Line


class TypeChange(NamedTuple):
    """A tag gives values of another type than before."""

    end: str
    field: str
    old: Kind
    new: Kind


class ClockStep(NamedTuple):
    """The clock of a source was set back."""

    end: str
    source: str
    back_s: float


class Pipeline:
    """Rows of ``ends``, all of one ``cluster``. ``lines`` converts, end by end, each field from its tag's unit."""

    def __init__(self, cluster: Cluster, ends: Sequence[End], lines: Sequence[Mapping[str, Line]]) -> None:
        rule = cluster.rows
        names = [field.name for field in cluster.fields]
        self._ends = [end.name for end in ends]
        self._names = names
        self._width = len(names)
        self._features = [names.index(field.name) for field in cluster.features]
        self._averaged = [i for i in self._features if rule.method == "mean" and cluster.fields[i].kind == "number"]
        self._label = names.index(cluster.label.source)
        self._group = names.index(cluster.group) if cluster.group else None
        self._on_change = names.index(rule.on_change) if rule.on_change else None
        self._every = round(rule.every_s * SECOND) if rule.every_s else None
        self._wait = round(rule.wait_s * SECOND)
        self._ahead = round(rule.clock_ahead_s * SECOND)
        self._readers = _readers(ends, names)
        self._conversion = Conversion.of(cluster.fields, lines, cluster.group)
        self._holding = Holding(cluster.fields, {rule.on_change, cluster.group, cluster.label.remaining})
        self._cleaner = Cleaner(cluster.fields * len(ends))
        self._clock = np.full(len(ends), NEVER, np.int64)
        self._closed = np.full(len(ends), NEVER, np.int64)
        self._trigger = np.full(len(ends), np.nan)
        self._read_by = [sorted({tag.split("/", 1)[0] for tag in end.tags.values()}) for end in ends]
        self._sources = {source: SourceClock(len(ends), self._wait) for source in self._readers}
        self._kind = np.zeros(len(ends) * len(names), np.uint8)
        self._told: set[tuple[int, int]] = set()
        self._notices: list[TypeChange | ClockStep] = []
        self._waiting: list[Events] = []  # not closed yet, those of one end in the order of arrival
        self._carried = Events.none()

    def add(
        self,
        source: str,
        block: SampleBlock,
        positions: Mapping[str, NDArray[np.intp]],
        wanted: NDArray[np.bool_] | None = None,
    ) -> None:
        """Take the samples of these ends out of a block; ``positions`` says where in the block each tag stands.

        ``wanted`` [ends] are those that have not had it yet; None: all.
        """
        readers = self._readers.get(source, {})
        mine = [(number, positions[tag]) for tag in positions for number in readers.get(tag, ())]
        if not mine:
            return
        chosen = np.concatenate([places for _, places in mine])
        field = np.repeat([number for number, _ in mine], [len(places) for _, places in mine])
        if wanted is not None:
            left = wanted[field // self._width]
            chosen, field = chosen[left], field[left]
        arrival = np.lexsort((chosen, field // self._width))
        chosen, field = chosen[arrival], field[arrival]
        end = field // self._width
        self._cleaner.count("samples", field)
        self._look_at_types(field, block.kind[chosen])
        value, bad, wrong = self._conversion.values(block, chosen, field)
        sane = block.source_time[chosen] <= block.gateway_time[chosen] + self._ahead
        for rule, hit in (("bad", bad), ("type", wrong), ("clock", ~sane)):
            self._cleaner.count(rule, field[hit])
        if not sane.all():
            chosen, field, end, value = chosen[sane], field[sane], end[sane], value[sane]
        time, steps = self._sources[source].times(end, block.source_time[chosen], block.gateway_time[chosen])
        self._notices.extend(ClockStep(self._ends[step.end], source, step.back_s) for step in steps)
        clock = highest_before(end, time, self._clock)
        last = lasts(end)
        self._clock[end[last]] = np.maximum(clock, time)[last]
        self._waiting.append(Events(field, np.maximum(time, clock - self._wait), time, value))

    def close(self) -> dict[str, FeatureBlock]:
        """The rows that are complete by now, for each end that has any; each is given once."""
        border = self._clock - self._wait - 1
        if self._every is not None:
            border = border // self._every * self._every
        due = (border > self._closed) & (self._clock != NEVER)
        if not due.any():
            return {}
        self._closed[due] = border[due]
        fresh = self._cleaner.clean(self._ripe(np.where(due, border, NEVER)))
        end = fresh.field // self._width
        if self._on_change is not None:
            trigger = fresh.field % self._width == self._on_change
            rows = changes(fresh.part(trigger), end[trigger], self._trigger)
        else:
            rows = ticks(end, fresh.at, self._every or SECOND)
        known = Events.join([self._carried, fresh])
        known = known.part(np.argsort(known.field, kind="stable"))
        self._carried = carry(known)
        return self._rows(rows, known)

    def counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """For each end and field, how many samples came and how many each rule rejected."""
        rows = iter(self._cleaner.counts.tolist())
        return {end: {name: dict(zip(RULES, next(rows), strict=True)) for name in self._names} for end in self._ends}

    def notices(self) -> list[TypeChange | ClockStep]:
        """What a person should know, each once since the start."""
        notices, self._notices = self._notices, []
        return notices

    def states(self) -> dict[str, str]:
        """Everything that later rows of each end depend on, for `restore`."""
        waiting = Events.join([Events.none(), *self._waiting])
        states = {}
        for number, name in enumerate(self._ends):
            part = self._part(number)
            state = {
                "clock": int(self._clock[number]),
                "closed": int(self._closed[number]),
                "trigger": float(self._trigger[number]),
                "waiting": self._of(number, waiting).lists(),
                "carried": self._of(number, self._carried).lists(),
                "memory": self._cleaner.memory.lists(part),
                "counts": self._cleaner.counts[part].tolist(),
                "kinds": self._kind[part].tolist(),
                "sources": {source: self._sources[source].state(number) for source in self._read_by[number]},
            }
            states[name] = json.dumps(state, separators=(",", ":"))
        return states

    def restore(self, states: Mapping[str, str]) -> None:
        """Go on where `states` were taken; an end without one begins anew."""
        carried = []
        for number, name in enumerate(self._ends):
            if not states.get(name):
                continue
            data, part = json.loads(states[name]), self._part(number)
            self._clock[number], self._closed[number] = data["clock"], data["closed"]
            self._trigger[number] = data["trigger"]
            self._waiting.append(Events.from_lists(data["waiting"]).shifted(part.start))
            carried.append(Events.from_lists(data["carried"]).shifted(part.start))
            self._cleaner.memory.put(part, data["memory"])
            self._cleaner.counts[part] = data["counts"]
            self._kind[part] = data["kinds"]
            for source, state in data["sources"].items():
                self._sources[source].restore(number, state)
        self._carried = Events.join([Events.none(), *carried])

    def _look_at_types(self, field: NDArray[np.int64], kind: NDArray[np.uint8]) -> None:
        """Note each field whose values are of another type than before."""
        other = (kind != self._kind[field]) & (kind != Kind.NONE)
        for number, new in dict.fromkeys(zip(field[other].tolist(), kind[other].tolist(), strict=True)):
            old, self._kind[number] = int(self._kind[number]), new
            if old and (number, new) not in self._told:
                self._told.add((number, new))
                end, name = divmod(number, self._width)
                self._notices.append(TypeChange(self._ends[end], self._names[name], Kind(old), Kind(new)))

    def _part(self, number: int) -> slice:
        """The fields of an end."""
        return slice(number * self._width, (number + 1) * self._width)

    def _of(self, number: int, events: Events) -> Events:
        """Those of one end, its fields counted from 0."""
        return events.part(events.field // self._width == number).shifted(-number * self._width)

    def _ripe(self, border: NDArray[np.int64]) -> Events:
        """Take the events up to each end's border out of what waits, in order."""
        waiting = Events.join([Events.none(), *self._waiting])
        ripe = waiting.at <= border[waiting.field // self._width]
        self._waiting = [] if ripe.all() else [waiting.part(~ripe)]
        events = waiting.part(ripe)
        return events.part(
            np.lexsort((events.at, events.field))
        )  # stable: of equal ones, the first to arrive comes first

    def _rows(self, rows: Moments, events: Events) -> dict[str, FeatureBlock]:
        cells = self._holding.cells(events, rows)
        if self._averaged:
            mean = means(events, rows, self._width, self._every or SECOND)
            averaged = np.zeros(self._width, np.bool_)
            averaged[self._averaged] = True
            cells = np.where(averaged & ~np.isnan(mean), mean, cells)
        group = np.zeros(len(cells)) if self._group is None else cells[:, self._group]
        made = FeatureBlock(time=rows.time, x=cells[:, self._features], group=group, label=cells[:, self._label])
        borders = np.searchsorted(rows.end, np.arange(len(self._ends) + 1)).tolist()
        return {
            name: made.part(borders[number], borders[number + 1])
            for number, name in enumerate(self._ends)
            if borders[number] < borders[number + 1]
        }


def _readers(ends: Sequence[End], names: Sequence[str]) -> dict[str, dict[str, list[int]]]:
    """For each source and tag the numbers of the fields it feeds."""
    readers: dict[str, dict[str, list[int]]] = {}
    for number, (end, name) in enumerate((end, name) for end in ends for name in names):
        source, tag = end.tags[name].split("/", 1)
        readers.setdefault(source, {}).setdefault(tag, []).append(number)
    return readers
