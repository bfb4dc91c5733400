"""Sources, their tags and ends as metrics: what comes from the machines, and how old it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.config import Config
from gateway.runtime import Runtime, State
from gateway.store import Store
from gateway.tags import STATES


class Sources:
    """Every source that is read. ``tag_old_after_s`` may be changed while it is in use."""

    def __init__(self, runtime: Runtime, tag_old_after_s: float) -> None:
        self.tag_old_after_s = tag_old_after_s
        self._runtime = runtime
        self._started = time.time_ns()

    def collect(self) -> Iterator[Metric]:
        """Names ``fedfab_source_…``, label source."""
        found, now = list(self._runtime.sources.values()), time.time_ns()
        up = GaugeMetricFamily("fedfab_source_up", "1 while data comes.", labels=["source", "type"])
        state = GaugeMetricFamily("fedfab_source_state", "1 for the state it is in.", labels=["source", "state"])
        age = GaugeMetricFamily(
            "fedfab_source_data_age_seconds",
            "Since data came last; since the gateway started where none has come.",
            labels=["source"],
        )
        readings = CounterMetricFamily("fedfab_source_readings", "Values read.", labels=["source"])
        bad = CounterMetricFamily(
            "fedfab_source_bad_readings", "Values read that were of bad quality.", labels=["source"]
        )
        overruns = CounterMetricFamily(
            "fedfab_source_overruns", "Readings due that could not be taken in time.", labels=["source"]
        )
        failures = GaugeMetricFamily("fedfab_source_failures", "Failures since data came last.", labels=["source"])
        reconnects = CounterMetricFamily("fedfab_source_reconnects", "Recoveries after a failure.", labels=["source"])
        for each in found:
            up.add_metric([each.name, each.type], each.state == "reading")
            for one in get_args(State):
                state.add_metric([each.name, one], each.state == one)
            age.add_metric([each.name], (now - (each.last_data or self._started)) / 1e9)
            readings.add_metric([each.name], each.readings)
            bad.add_metric([each.name], each.bad)
            overruns.add_metric([each.name], each.overruns)
            failures.add_metric([each.name], each.failures)
            reconnects.add_metric([each.name], each.reconnects)
        yield from (up, state, age, readings, bad, overruns, failures, reconnects)
        yield from self._tags(now)

    def tags(self, source: str) -> dict[str, object]:
        """For the status: how many tags are in each state, and the first of those that are not good."""
        states = self._runtime.tags[source].states(time.time_ns(), self.tag_old_after_s)
        worst = [f"{tag} ({state})" for state in ("bad", "old", "none") for tag in states[state]]
        return {**{state: len(names) for state, names in states.items()}, "worst": worst[:10]}

    def _tags(self, now: int) -> Iterator[Metric]:
        tags = GaugeMetricFamily(
            "fedfab_source_tags",
            "Tags by the state of their last value: good, bad (quality), old, none (nothing came yet).",
            labels=["source", "state"],
        )
        ratio = GaugeMetricFamily("fedfab_source_bad_tags_ratio", "Share of tags that are not good.", labels=["source"])
        for source, each in list(self._runtime.tags.items()):
            states = each.states(now, self.tag_old_after_s)
            for state in STATES:
                tags.add_metric([source, state], len(states[state]))
            ratio.add_metric([source], 1 - len(states["good"]) / len(each.names))
        yield from (tags, ratio)


class Ends:
    """Every end: how many rows it has, how old the newest is, and what cleaning kept out of them."""

    def __init__(self, config: Config, store: Store, runtime: Runtime) -> None:
        self.config = config
        self._store, self._runtime = store, runtime

    def collect(self) -> Iterator[Metric]:
        """Names ``fedfab_end_…``, label end."""
        labels = ["end", "cluster"]
        rows = GaugeMetricFamily("fedfab_end_rows", "Feature rows in the store.", labels=labels)
        age = GaugeMetricFamily("fedfab_end_data_age_seconds", "Age of the newest feature row.", labels=labels)
        stored, now = self._store.rows(), time.time()
        for end in self.config.ends:
            count, newest = stored.get(end.name, (0, None))
            rows.add_metric([end.name, end.cluster], count)
            if newest is not None:
                age.add_metric([end.name, end.cluster], now - newest / 1e9)
        yield from (rows, age)
        rejected = CounterMetricFamily(
            "fedfab_end_rejected_samples",
            "Samples that cleaning kept out of the rows, by rule.",
            labels=["end", "field", "rule"],
        )
        for end_name, fields in self._runtime.rejected().items():
            for field, counts in fields.items():
                for rule, count in counts.items():
                    if rule != "samples":
                        rejected.add_metric([end_name, field, rule], count)
        yield rejected
