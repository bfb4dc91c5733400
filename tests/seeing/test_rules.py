"""When an alert fires, repeats and is over: thresholds, hysteresis, duration, ratios, increases, labels; state over a restart."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.config import AlertRule
from gateway.config.seeing import DEFAULT_RULES, Alerts, rules_in_force
from gateway.seeing.rules import Event, Rules

PRESS = (("source", "press"),)
LATHE = (("source", "lathe"),)


def rule(**options: Any) -> AlertRule:
    return AlertRule.model_validate({"name": "age", "metric": "fedfab_age_seconds", "above": 10.0, **options})


def rules(*given: AlertRule, repeat_s: float = 0.0) -> Rules:
    return Rules(given, repeat_s)


def told(events: list[Event]) -> list[tuple[str, dict[str, str]]]:
    return [(event.what, event.labels) for event in events]


def walk(watched: Rules, values: list[float], *, step_s: float = 1.0) -> list[str]:
    """What is told, word by word, of a series that takes these values a second apart; a full stop for silence."""
    words = []
    for i, value in enumerate(values):
        events = watched.evaluate({"fedfab_age_seconds": {PRESS: value}}, i * step_s)
        words.append(events[0].what if events else ".")
    return words


@pytest.mark.clause("9.4.3a")
def test_it_fires_once_and_is_over_once() -> None:
    assert walk(rules(rule()), [5, 11, 12, 50, 9, 8]) == [".", "fired", ".", ".", "cleared", "."]


def test_between_threshold_and_clear_nothing_changes() -> None:
    assert walk(rules(rule(clear=5.0)), [11, 9, 11, 6, 5]) == ["fired", ".", ".", ".", "cleared"]
    assert walk(rules(rule(above=None, below=2.0, clear=4.0)), [3, 1, 3, 4]) == [".", "fired", ".", "cleared"]


def test_only_what_lasts_is_told() -> None:
    watched = rules(rule(for_s=3.0))
    assert walk(watched, [11, 11, 9, 11, 11, 11, 11]) == [".", ".", ".", ".", ".", ".", "fired"]


def test_what_stays_is_told_again() -> None:
    assert walk(rules(rule(), repeat_s=2.0), [11, 11, 11, 11, 11]) == ["fired", ".", "repeated", ".", "repeated"]


def test_each_series_is_judged_for_itself_and_labels_select() -> None:
    watched = rules(rule(labels={"source": "press"}), rule(name="all"))
    both = {"fedfab_age_seconds": {PRESS: 11.0, LATHE: 12.0}}
    assert [(e.alert, e.labels["source"]) for e in watched.evaluate(both, 0)] == [
        ("age", "press"), ("all", "press"), ("all", "lathe"),
    ]  # fmt: skip
    gone = watched.evaluate({"fedfab_age_seconds": {PRESS: 11.0}}, 1)
    assert told(gone) == [("cleared", {"source": "lathe"})]
    assert gone[0].value is None


def test_a_ratio_to_another_metric() -> None:
    watched = rules(rule(metric="fedfab_depth", divided_by="fedfab_limit", above=0.8))
    values = {"fedfab_depth": {PRESS: 90.0, LATHE: 10.0}, "fedfab_limit": {PRESS: 100.0, LATHE: 100.0}}
    assert told(watched.evaluate(values, 0)) == [("fired", {"source": "press"})]
    assert (
        rules(rule(metric="fedfab_depth", divided_by="fedfab_limit")).evaluate({"fedfab_depth": {PRESS: 1.0}}, 0) == []
    )


def test_growth_of_a_counter_within_a_time_over_its_restart_too() -> None:
    watched = rules(rule(increase_over_s=3.0, above=4.0))
    assert walk(watched, [100, 102, 104, 105, 105, 105, 105, 105]) == [
        ".", ".", ".", "fired", "cleared", ".", ".", ".",
    ]  # fmt: skip
    assert walk(rules(rule(increase_over_s=100.0, above=4.0)), [100, 103, 2, 5]) == [".", ".", ".", "fired"]


def test_active_alerts_outlive_a_restart() -> None:
    before = rules(rule())
    assert walk(before, [11]) == ["fired"]
    after = rules(rule())
    after.restore(json.loads(json.dumps(before.to_json())))
    assert walk(after, [12, 9]) == [".", "cleared"]


def test_a_reload_keeps_what_stays_and_forgets_what_goes() -> None:
    stays, goes = rule(), rule(name="goes")
    watched = rules(stays, goes)
    assert len(watched.evaluate({"fedfab_age_seconds": {PRESS: 11.0}}, 0)) == 2
    watched.apply((stays,), 0.0)
    assert watched.evaluate({"fedfab_age_seconds": {PRESS: 11.0}}, 1) == []
    assert [fired.name for fired, _, _ in watched.firing()] == ["age"]


@given(st.lists(st.floats(0, 20), max_size=60), st.floats(0, 3), st.floats(0, 10))
def test_whatever_comes_firing_and_clearing_alternate(values: list[float], for_s: float, clear: float) -> None:
    words = [word for word in walk(rules(rule(for_s=for_s, clear=clear)), values) if word != "."]
    assert words == (["fired", "cleared"] * len(words))[: len(words)]


def test_shipped_rules_are_there_and_can_be_tuned_and_switched_off() -> None:
    assert {each.name for each in rules_in_force(Alerts(), ())} == set(DEFAULT_RULES)
    tuned = AlertRule.model_validate({"name": "disk-full", "above": 0.7})
    (found,) = (each for each in rules_in_force(Alerts(), (tuned,)) if each.name == "disk-full")
    assert (found.above, found.clear, found.for_s, found.severity) == (0.7, None, 60.0, "critical")
    off = AlertRule(name="disk-full", enabled=False)
    assert "disk-full" not in {each.name for each in rules_in_force(Alerts(), (off,))}
    assert rules_in_force(Alerts(shipped=False), (rule(),)) == (rule(),)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"above": None}, "exactly one of above and below"),
        ({"below": 3.0}, "exactly one of above and below"),
        ({"clear": 11.0}, "beyond the threshold"),
        ({"metric": None}, "metric is required"),
        ({"message": "{value"}, "names in braces"),
        ({"divided_by": "fedfab_x", "increase_over_s": 3.0}, "at most one"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        rule(**options)
