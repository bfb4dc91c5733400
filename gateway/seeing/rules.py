"""Alert rules over metrics: when one fires, when it repeats, when it is cleared. Arithmetic and a clock handed in, no I/O.

A rule watches every series of its metric that its labels select, each for itself. Between the threshold and the value that clears it
nothing changes (hysteresis), and it fires only after the threshold was passed for a while, so a value that wavers rings once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from prometheus_client.core import Metric

from gateway.config import AlertRule

Labels = tuple[tuple[str, str], ...]
Values = Mapping[str, Mapping[Labels, float]]
"""For each sample name its value in each series."""

What = Literal["fired", "repeated", "cleared"]


@dataclass(frozen=True, slots=True)
class Event:
    """What a person is told."""

    what: What
    alert: str
    severity: str
    labels: dict[str, str]
    value: float | None
    threshold: float
    message: str
    since: float
    """When the threshold was passed, Unix time."""
    at: float

    def to_json(self) -> dict[str, Any]:
        """Plain data for a message."""
        return asdict(self)


@dataclass(slots=True)
class Active:
    """One series of one rule past its threshold."""

    since: float
    fired: float | None = None
    """When it was last told; None while it is only pending."""
    value: float | None = None


@dataclass(slots=True)
class Rules:
    """The state of all rules. `evaluate` is called now and then with fresh values; its pace is no part of the outcome."""

    rules: tuple[AlertRule, ...]
    repeat_s: float
    active: dict[tuple[str, Labels], Active] = field(default_factory=dict)
    _history: dict[tuple[str, Labels], deque[tuple[float, float]]] = field(default_factory=dict)

    def evaluate(self, values: Values, now: float) -> list[Event]:
        """What has to be told now. A series that is gone counts as cleared."""
        events: list[Event] = []
        for rule in self.rules:
            found = dict(self._values(rule, values, now))
            for labels, value in found.items():
                events += self._judge(rule, labels, abs(value) if rule.magnitude else value, now)
            gone = [labels for name, labels in self.active if name == rule.name and labels not in found]
            for labels in gone:
                events += self._end(rule, labels, None, now)
        return events

    def apply(self, rules: tuple[AlertRule, ...], repeat_s: float) -> None:
        """Other rules from now on; those that stay keep their state, what belongs to one that is gone is forgotten."""
        kept = {rule.name for rule in rules if rule in self.rules}
        self.rules, self.repeat_s = rules, repeat_s
        self.active = {key: state for key, state in self.active.items() if key[0] in kept}
        self._history = {key: past for key, past in self._history.items() if key[0] in kept}

    def unknown(self, values: Values) -> list[AlertRule]:
        """Rules over a metric that this gateway does not have: they can never fire."""
        return [rule for rule in self.rules if rule.metric not in values]

    def firing(self) -> Iterator[tuple[AlertRule, Labels, Active]]:
        """What has fired and is not cleared."""
        rules = {rule.name: rule for rule in self.rules}
        for (name, labels), state in list(self.active.items()):
            if state.fired is not None and name in rules:
                yield rules[name], labels, state

    def to_json(self) -> list[dict[str, Any]]:
        """What must outlive a restart, so that nothing fires twice and all is cleared."""
        return [
            {"alert": rule.name, "labels": dict(labels), "since": state.since, "fired": state.fired}
            for rule, labels, state in self.firing()
        ]

    def restore(self, kept: Iterable[Mapping[str, Any]]) -> None:
        """Take up what `to_json` gave."""
        for each in kept:
            labels = tuple(sorted(each["labels"].items()))
            self.active[each["alert"], labels] = Active(each["since"], each["fired"])

    def _judge(self, rule: AlertRule, labels: Labels, value: float, now: float) -> list[Event]:
        key = rule.name, labels
        state = self.active.get(key)
        if rule.passed(value):
            state = self.active.setdefault(key, Active(now))
        elif state is None:
            return []
        elif state.fired is None or rule.cleared(value):
            return self._end(rule, labels, value, now)
        state.value = value
        if state.fired is None and now - state.since >= rule.for_s:
            state.fired = now
            return [_event("fired", rule, labels, state, now)]
        if state.fired is not None and now - state.fired >= self.repeat_s > 0:
            state.fired = now
            return [_event("repeated", rule, labels, state, now)]
        return []

    def _end(self, rule: AlertRule, labels: Labels, value: float | None, now: float) -> list[Event]:
        state = self.active.pop((rule.name, labels))
        state.value = value
        return [] if state.fired is None else [_event("cleared", rule, labels, state, now)]

    def _values(self, rule: AlertRule, values: Values, now: float) -> Iterator[tuple[Labels, float]]:
        wanted = set(rule.labels.items())
        divisors = values.get(rule.divided_by, {}) if rule.divided_by else None
        for labels, value in values.get(rule.metric or "", {}).items():
            if not wanted <= set(labels):
                continue
            if rule.increase_over_s is not None:
                yield labels, self._increase((rule.name, labels), value, now, rule.increase_over_s)
            elif divisors is None:
                yield labels, value
            elif divisor := divisors.get(labels):
                yield labels, value / divisor

    def _increase(self, key: tuple[str, Labels], value: float, now: float, over_s: float) -> float:
        """By how much a counter grew over the last ``over_s`` seconds, or since it is watched; a restart of it counts from 0."""
        past = self._history.setdefault(key, deque())
        if past and value < past[-1][1]:
            past.clear()
            past.append((now, 0.0))
        past.append((now, value))
        while len(past) > 2 and past[1][0] <= now - over_s:
            past.popleft()
        return value - past[0][1]


def values_of(families: Iterable[Metric]) -> dict[str, dict[Labels, float]]:
    """Samples by name and series. A family without samples is there, too."""
    found: dict[str, dict[Labels, float]] = {}
    for family in families:
        found.setdefault(family.name + ("_total" if family.type == "counter" else ""), {})
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def _event(what: What, rule: AlertRule, labels: Labels, state: Active, now: float) -> Event:
    named, value = dict(labels), state.value
    message = rule.told(named, value)
    return Event(what, rule.name, rule.severity, named, value, rule.threshold, message, state.since, now)
