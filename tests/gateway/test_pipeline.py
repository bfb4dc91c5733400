"""From samples to rows: cleaning, conversion, resampling, and that batches never matter."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.contract import Quality, Sample, Value
from gateway.blocks import FeatureBlock, Kind, SampleBlock
from gateway.config import Config
from gateway.pipeline.ends import ClockStep, Pipeline, TypeChange
from gateway.pipeline.units import conversion
from tests.gateway.plants import SECOND, config, snapshot

NAN = math.nan


def pipeline(settings: Config) -> Pipeline:
    cluster = settings.clusters[0]
    units = settings.sources[0].tag_units()
    lines = {field.name: conversion(units[field.name], field.unit) for field in cluster.fields}
    return Pipeline(cluster, settings.ends[:1], [lines])  # type: ignore[arg-type]


def feed(pipe: Pipeline, samples: list[Sample], source: str = "m1") -> FeatureBlock:
    block = SampleBlock.of(samples)
    pipe.add(source, block, block.positions())
    none = FeatureBlock(np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros(0), np.zeros(0))
    return pipe.close().get("m1", none)


def run(settings: Config, *snapshots: list[Sample]) -> tuple[FeatureBlock, Pipeline]:
    """All rows of these snapshots; a last one, a day later, closes them."""
    pipe = pipeline(settings)
    end = snapshot(86400, cycle=-1)
    return feed(pipe, [sample for each in snapshots for sample in each] + end), pipe


def fields(**vibration: object) -> list[dict[str, object]]:
    """The usual fields, with rules for vibration."""
    return [
        {"name": "vibration", "unit": "mm/s", **vibration},
        {"name": "cycle", "role": "aux"},
        {"name": "run", "role": "aux"},
    ]


def vibrations(tmp_path: Path, values: list[object], rules: dict[str, object]) -> tuple[list[float], dict[str, int]]:
    """The vibration of each row, a second apart, and what the rules counted."""
    snaps = [snapshot(i, vibration=value, cycle=i, run=1) for i, value in enumerate(values)]  # type: ignore[arg-type]
    rows, pipe = run(config(tmp_path, field=fields(**rules)), *snaps)
    counts = pipe.counts()["m1"]["vibration"]
    return rows.x[:, 0].tolist(), {rule: n for rule, n in counts.items() if n and rule != "samples"}


def test_a_row_takes_the_last_value_of_each_field_at_the_time_of_the_trigger(tmp_path: Path) -> None:
    rows, _ = run(
        config(tmp_path),
        snapshot(1, vibration=1.0, temperature=32.0, cycle=1, run=7),
        snapshot(2, temperature=212.0),
        snapshot(3, cycle=2, vibration=3.0),
        snapshot(3.5, vibration=99.0),
    )
    assert rows.time.tolist() == [1 * SECOND, 3 * SECOND]
    np.testing.assert_allclose(rows.x, [[1.0, 0.0], [3.0, 100.0]], atol=1e-12)
    assert rows.group.tolist() == [7, 7]
    assert rows.label.tolist() == [1, 2]


def test_a_row_waits_for_the_rest_of_its_snapshot(tmp_path: Path) -> None:
    pipe = pipeline(config(tmp_path))
    assert len(feed(pipe, snapshot(1, cycle=1, run=1))) == 0
    assert len(feed(pipe, snapshot(1, vibration=5.0, temperature=50.0))) == 0
    rows = feed(pipe, snapshot(2, vibration=6.0))
    assert rows.x[:, 0].tolist() == [5.0]


@pytest.mark.clause("8.4")
@pytest.mark.parametrize(
    ("values", "rules", "expected", "counted"),
    [
        ([1.0, 500.0, -1.0, 2.0], {"min": 0, "max": 100}, [1, 1, 1, 2], {"range": 2}),
        ([1.0, 500.0, 2.0], {"max": 100, "missing": "drop"}, [1, NAN, 2], {"range": 1}),
        ([1.0, 9.0, 2.0, 2.5], {"max_rate_per_s": 2}, [1, 1, 2, 2.5], {"rate": 1}),
        ([1.0, 4.0, 4.0, 4.0], {"max_rate_per_s": 1}, [1, 1, 1, 4], {"rate": 2}),
        ([1.0, 1.0, 1.0, 1.0, 2.0], {"frozen_s": 2, "missing": "drop"}, [1, 1, 1, NAN, 2], {"frozen": 1}),
        ([1.0, None, NAN, math.inf, 2.0], {"missing": "drop"}, [1, NAN, NAN, NAN, 2], {"bad": 3}),
        ([1.0, None, None, None], {"max_hold_s": 2}, [1, 1, 1, NAN], {"bad": 3}),
        ([1.0, "2.5", "oops", True], {}, [1, 2.5, 2.5, 1], {"type": 1}),
        ([None, 1.0], {}, [NAN, 1], {"bad": 1}),
        (["ok", "worn", "odd"], {"kind": "category", "categories": ["ok", "worn"]}, [0, 1, 1], {"type": 1}),
        ([True, 0, 1.0], {"kind": "category", "categories": ["0", "1", "true"]}, [2, 0, 1], {}),
    ],
)
def test_cleaning_rules(
    tmp_path: Path, values: list[object], rules: dict[str, object], expected: list[float], counted: dict[str, int]
) -> None:
    got, counts = vibrations(tmp_path, values, rules)
    np.testing.assert_equal(got, expected)
    assert counts == counted


def test_a_bad_sample_is_missing_whatever_its_value(tmp_path: Path) -> None:
    rows, pipe = run(
        config(tmp_path, field=fields(missing="drop")),
        snapshot(1, vibration=1.0, cycle=1, run=1),
        snapshot(2, Quality.BAD, vibration=0.0) + snapshot(2, cycle=2),
        snapshot(3, Quality.UNCERTAIN, vibration=3.0) + snapshot(3, cycle=3),
    )
    np.testing.assert_equal(rows.x[:, 0], [1.0, NAN, 3.0])
    assert pipe.counts()["m1"]["vibration"]["bad"] == 1


def test_a_repeated_sample_counts_once(tmp_path: Path) -> None:
    once = snapshot(1, vibration=1.0, cycle=1, run=1)
    rows, pipe = run(config(tmp_path), once, once, snapshot(2, cycle=2))
    assert len(rows) == 2
    assert pipe.counts()["m1"]["vibration"]["duplicate"] == 1


def test_a_clock_that_jumped_ahead_is_not_believed(tmp_path: Path) -> None:
    jumped = [Sample("vibration", 66.0, Quality.GOOD, 9_000_000 * SECOND, 2 * SECOND)]
    rows, pipe = run(
        config(tmp_path), snapshot(1, vibration=1.0, cycle=1, run=1), jumped, snapshot(3, vibration=3.0, cycle=2)
    )
    assert rows.time.tolist() == [1 * SECOND, 3 * SECOND]
    assert rows.x[:, 0].tolist() == [1.0, 3.0]
    assert pipe.counts()["m1"]["vibration"]["clock"] == 1


def test_a_late_sample_changes_no_closed_row_but_those_to_come(tmp_path: Path) -> None:
    pipe = pipeline(config(tmp_path))
    feed(pipe, snapshot(5, vibration=1.0, cycle=1, run=1))
    first = feed(pipe, snapshot(6, cycle=2))
    second = feed(pipe, snapshot(2, temperature=212.0) + snapshot(3, vibration=9.0) + snapshot(7, cycle=3))
    third = feed(pipe, snapshot(8, cycle=4))
    assert np.isnan(first.x[0, 1])  # closed before the first temperature came, though that was measured earlier
    np.testing.assert_allclose(second.x[0], [1.0, 100.0])
    np.testing.assert_allclose(third.x[0], [1.0, 100.0])
    assert pipe.counts()["m1"]["vibration"]["late"] == 1


def test_samples_out_of_order_within_the_wait_are_put_in_order(tmp_path: Path) -> None:
    settings = config(tmp_path, rows={"on_change": "cycle", "wait_s": 2})
    ordered = [snapshot(i, vibration=float(i), temperature=50.0, cycle=i, run=1) for i in range(6)]
    by_tag = sorted((s for each in ordered for s in each if s.source_time < 2 * SECOND), key=lambda s: s.tag)
    rows, _ = run(settings, by_tag, *ordered[2:])
    assert rows.x[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_silent_source_does_not_stop_the_rows(tmp_path: Path) -> None:
    settings = config(tmp_path, ends=("m1", "m2"))
    end = settings.ends[0].model_copy(
        update={"tags": {**settings.ends[0].tags, "temperature": "m2/temperature"}},
    )
    pipe = pipeline(settings.model_copy(update={"ends": (end,)}))
    feed(pipe, snapshot(1, vibration=1.0, cycle=1, run=1))
    rows = feed(pipe, snapshot(2, cycle=2))
    np.testing.assert_equal(rows.x, [[1.0, NAN]])


@pytest.mark.parametrize(("method", "expected"), [("last", [3.0, 4.0, 4.0, 8.0]), ("mean", [2.0, 4.0, 4.0, 8.0])])
def test_rows_at_equal_intervals(tmp_path: Path, method: str, expected: list[float]) -> None:
    settings = config(
        tmp_path,
        rows={"every_s": 10, "wait_s": 0, "method": method},
        field=fields(),
        label={"field": "cycle"},
        group=None,
    )
    rows, _ = run(
        settings,
        snapshot(1, vibration=1.0),
        snapshot(10, vibration=3.0),
        snapshot(15, vibration=4.0),
        snapshot(21, cycle=3),
        snapshot(70, vibration=8.0),
    )
    assert (rows.time // SECOND).tolist() == [10, 20, 30, 70]
    assert rows.x[:, 0].tolist() == expected
    np.testing.assert_equal(rows.label, [NAN, NAN, 3, 3])


@pytest.mark.clause("9.3.4c")
@pytest.mark.parametrize(
    ("value", "unit", "to", "expected"),
    [
        (100, "degC", "degF", 212),
        (32, "degF", "degC", 0),
        (0, "degC", "K", 273.15),
        (1, "in/s", "mm/s", 25.4),
        (1, "bar", "kPa", 100),
        (1, "psi", "kPa", 6.894757293168361),
        (3000, "rpm", "Hz", 50),
        (1, "kWh", "MJ", 3.6),
        (50, "%", "1", 0.5),
        (7, "widgets", "widgets", 7),
    ],
)
def test_units(value: float, unit: str, to: str, expected: float) -> None:
    line = conversion(unit, to)
    assert line is not None
    assert value * line.scale + line.offset == pytest.approx(expected, rel=1e-12, abs=1e-9)


def test_units_of_two_dimensions_do_not_convert() -> None:
    assert conversion("degC", "mm/s") is None
    assert conversion("", "mm/s") is None
    assert conversion("widgets", "mm/s") is None


def test_a_run_named_by_text_is_told_apart(tmp_path: Path) -> None:
    rows, _ = run(
        config(tmp_path),
        snapshot(1, vibration=1.0, temperature=1.0, cycle=1, run="A-7"),
        snapshot(2, cycle=2, run="B-1"),
        snapshot(3, cycle=3, run="A-7"),
    )
    assert rows.group[0] == rows.group[2] != rows.group[1]


@st.composite
def histories(draw: st.DrawFn, stride: int = 1) -> list[Sample]:
    """Samples whose source times mostly go forward, a quarter of a second or ``stride`` of them at a time, with repeated, late, bad
    and odd ones."""
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["vibration", "vibration", "temperature", "cycle", "run", "unused"]),
                st.one_of(
                    st.sampled_from([1.0, 2.0, 2.0, 9.0]), st.integers(0, 3), st.none(), st.just("x"), st.floats(-9, 9)
                ),
                st.sampled_from([Quality.GOOD] * 5 + [Quality.BAD]),
                st.sampled_from([0, 0, 0, 1, 1, 2, 4, -1, -8, 4000, *([-60] * (stride > 1))]),
            ),
            min_size=1,
            max_size=60,
        )
    )
    now, back, samples = 0, 0, []
    for tag, value, quality, step in steps:
        back += step if step == -60 else 0  # a clock that is set back stays there
        time = now + (back + (step if step != -60 else 0)) * stride * SECOND // 4
        now = max(now, time - back * stride * SECOND // 4) if step < 4000 else now  # a clock that jumped comes back
        samples.append(Sample(tag, value, quality, time, now))
    return samples


RULES = st.sampled_from(
    [
        {"on_change": "cycle", "wait_s": 0},
        {"on_change": "cycle", "wait_s": 1.5},
        {"every_s": 1.0, "wait_s": 0},
        {"every_s": 0.7, "wait_s": 1, "method": "mean"},
    ]
)
CLEANING = {"min": -5, "max": 5, "max_rate_per_s": 3, "frozen_s": 2, "max_hold_s": 3}


@pytest.mark.clause("8.4")
@settings(max_examples=300, deadline=None)
@given(histories() | histories(stride=60), RULES, st.lists(st.integers(0, 60), max_size=8), st.booleans())
def test_batches_and_restarts_do_not_matter(
    samples: list[Sample],
    rule: dict[str, object],
    cuts: list[int],
    drop: bool,
) -> None:
    columns = fields(**CLEANING, missing="drop" if drop else "hold")
    columns.insert(1, {"name": "temperature", "unit": "degC"})
    made = config(Path("unused"), rows=rule, field=columns)
    at_once, reference = run(made, samples)
    pipe = pipeline(made)
    borders = sorted({0, *(cut for cut in cuts if cut < len(samples))})
    parts = []
    for start, end in zip(borders, [*borders[1:], len(samples)], strict=True):
        parts.append(feed(pipe, samples[start:end]))
        states = pipe.states()
        pipe = pipeline(made)
        pipe.restore(states)
    parts.append(feed(pipe, snapshot(86400, cycle=-1)))
    for name in ("time", "x", "group", "label"):
        np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(at_once, name))
    assert pipe.counts() == reference.counts()
    assert (np.diff(at_once.time) > 0).all()


def ticking(start: int, seconds: int, back_s: float) -> list[Sample]:
    """A snapshot each second by the gateway's clock, of a machine whose clock is behind by ``back_s``."""
    return [
        sample._replace(source_time=sample.source_time - round(back_s * SECOND))
        for second in range(start, start + seconds)
        for sample in snapshot(second, vibration=float(second), cycle=second, run=1)
    ]


def test_a_clock_that_was_set_back_is_believed_after_a_minute_and_rows_go_on_in_the_time_before(tmp_path: Path) -> None:
    pipe = pipeline(config(tmp_path, field=fields()))
    assert len(feed(pipe, ticking(10_000, 100, 0))) == 99
    rows = feed(pipe, ticking(10_100, 200, 3600))
    assert pipe.notices() == [ClockStep("m1", "m1", 3599.0)]
    assert rows.x[:, 0].tolist() == [10_099, *range(10_160, 10_299)]
    assert rows.time.tolist() == [second * SECOND for second in (10_099, *range(10_100, 10_239))]
    counts = pipe.counts()["m1"]["vibration"]
    assert counts["late"] == 60
    rows = feed(pipe, ticking(10_300, 50, 0))  # set right again: its time counts as it is
    assert rows.time.tolist()[2:] == [second * SECOND for second in range(10_301, 10_349)]
    assert pipe.counts()["m1"]["vibration"]["late"] == 60
    assert pipe.notices() == []


def test_a_backlog_sent_after_a_break_is_late_and_no_step_of_the_clock(tmp_path: Path) -> None:
    pipe = pipeline(config(tmp_path, field=fields()))
    feed(pipe, ticking(10_000, 10, 0))
    backlog = [
        sample._replace(gateway_time=(10_010 + number // 20) * SECOND)
        for number, sample in enumerate(ticking(5_000, 900, 0))
    ]
    feed(pipe, backlog)
    rows = feed(pipe, ticking(10_200, 5, 0))
    assert pipe.notices() == []
    assert rows.time[-1] == 10_203 * SECOND


def test_a_new_type_is_told_once_and_text_for_a_number_is_missing_and_counted(tmp_path: Path) -> None:
    pipe = pipeline(config(tmp_path, field=fields()))
    values: list[Value] = [1, 2, None, 2.5, "warm", "cold", 3.5, "warm"]
    rows = feed(pipe, [s for i, value in enumerate(values) for s in snapshot(i, vibration=value, cycle=i, run=1)])
    np.testing.assert_equal(rows.x[:, 0], [1, 2, 2, 2.5, 2.5, 2.5, 3.5])
    assert pipe.notices() == [
        TypeChange("m1", "vibration", Kind.INTEGER, Kind.NUMBER),
        TypeChange("m1", "vibration", Kind.NUMBER, Kind.TEXT),
    ]
    restored = pipeline(config(tmp_path, field=fields()))
    restored.restore(pipe.states())
    feed(restored, snapshot(9, vibration=1, cycle=9, run=1))
    assert restored.notices() == [TypeChange("m1", "vibration", Kind.TEXT, Kind.INTEGER)]
    assert pipe.counts()["m1"]["vibration"]["type"] == 3


@pytest.mark.clause("8.4")
@settings(max_examples=150, deadline=None)
@given(st.lists(histories(), min_size=2, max_size=4), RULES, st.lists(st.integers(0, 60), max_size=4))
def test_ends_side_by_side_are_as_each_alone(
    machines: list[list[Sample]], rule: dict[str, object], cuts: list[int]
) -> None:
    ends = tuple(f"m{number}" for number in range(len(machines)))
    columns = fields(**CLEANING)
    columns.insert(1, {"name": "temperature", "unit": "degC"})
    made = config(Path("unused"), ends=ends, rows=rule, field=columns)
    units = made.sources[0].tag_units()
    lines = {field.name: conversion(units[field.name], field.unit) for field in made.clusters[0].fields}
    alone = {end.name: Pipeline(made.clusters[0], [end], [lines]) for end in made.ends}  # type: ignore[list-item]
    together = Pipeline(made.clusters[0], made.ends, [lines] * len(ends))  # type: ignore[list-item]
    borders = sorted({0, 60, *cuts})
    for start, stop in pairwise([*borders, 61]):
        for end, samples in zip(ends, machines, strict=True):
            block = SampleBlock.of(samples[start:stop])
            for pipe in (alone[end], together):
                pipe.add(end, block, block.positions())
        got = together.close()
        for end, pipe in alone.items():
            expected = pipe.close()
            assert (end in got) == (end in expected)
            for name in ("time", "x", "group", "label") if end in got else ():
                np.testing.assert_array_equal(getattr(got[end], name), getattr(expected[end], name))
        states = together.states()
        for end, pipe in alone.items():
            assert states[end] == pipe.states()[end]
