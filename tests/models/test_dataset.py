from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.dataset import Dataset, Rows, build, class_numbers, last_windows
from models.errors import ModelError
from models.spec import DataSpec, TaskSpec

NAN = float("nan")


def rows(groups: list[float], label: list[float] | None = None, time: list[int] | None = None) -> Rows:
    """Two features that tell each row: its number and its number times ten."""
    n = len(groups)
    number = np.arange(n, dtype=np.float64)
    return Rows(
        time=np.array(time if time is not None else range(n), dtype=np.int64),
        x=np.stack([number, number * 10], axis=1),
        group=np.array(groups, dtype=np.float64),
        label=np.array(label if label is not None else number, dtype=np.float64),
    )


def numbers(data: Dataset) -> list[list[int]]:
    """The rows in each window."""
    return data.x[:, :, 0].astype(int).tolist()


def test_windows_stay_inside_their_group() -> None:
    data = build(DataSpec(window=3, holdout=0), rows([7, 7, 7, 7, 5, 5, 5]), "end")
    assert numbers(data) == [[0, 1, 2], [1, 2, 3], [4, 5, 6]]
    assert data.y.tolist() == [2, 3, 6]
    assert data.group.tolist() == [7, 7, 5]
    assert data.x.dtype == np.float32
    assert data.x[0, :, 1].tolist() == [0, 10, 20]


def test_stride_counts_from_the_start_of_each_group() -> None:
    data = build(DataSpec(window=2, stride=2, holdout=0), rows([1] * 5 + [2] * 4), "end")
    assert numbers(data) == [[0, 1], [2, 3], [5, 6], [7, 8]]


def test_a_short_group_is_padded_with_its_first_row() -> None:
    data = build(DataSpec(window=4, holdout=0), rows([1, 1, 2, 2, 2, 2]), "end")
    assert numbers(data) == [[0, 0, 0, 1], [2, 3, 4, 5]]


@pytest.mark.parametrize("value", [NAN, float("inf"), 1e300])
def test_rows_with_gaps_never_enter_a_window(value: float) -> None:
    source = rows([1, 1, 1, 1, NAN])
    source.x[1, 1] = value
    assert numbers(build(DataSpec(window=3, holdout=0), source, "end")) == [[0, 2, 3]]


def test_unlabelled_windows_are_no_samples() -> None:
    data = build(DataSpec(window=2, holdout=0), rows([1] * 5, label=[NAN, 1, NAN, NAN, 4]), "end")
    assert numbers(data) == [[0, 1], [3, 4]]


def test_rows_come_in_any_order() -> None:
    shuffled = rows([1, 2, 1, 2, 1], time=[40, 10, 20, 30, 0])
    assert numbers(build(DataSpec(window=2, holdout=0), shuffled, "end")) == [[4, 2], [2, 0], [1, 3]]


@pytest.mark.parametrize(
    ("groups", "share", "held"),
    [
        (2, 0.1, [1]),
        (3, 0.2, [1]),
        (10, 0.1, [1]),
        (12, 0.1, [1, 11]),
        (10, 0.2, [1, 6]),
        (6, 0.5, [1, 3, 5]),
        (5, 0.8, [1, 2, 3, 4]),
        (5, 0.0, []),
    ],
)
def test_whole_groups_are_held_out(groups: int, share: float, held: list[int]) -> None:
    data = build(DataSpec(window=2, holdout=share), rows([float(g) for g in range(groups) for _ in range(3)]), "end")
    assert sorted(set(data.validation().group.tolist())) == held
    assert set(data.train().group.tolist()).isdisjoint(held)
    assert len(data.train()) + len(data.validation()) == len(data)


def test_later_groups_do_not_move_the_hold_out() -> None:
    few = build(DataSpec(holdout=0.2), rows([float(g) for g in range(7)]), "end")
    many = build(DataSpec(holdout=0.2), rows([float(g) for g in range(30)]), "end")
    assert many.holdout[:7].tolist() == few.holdout.tolist()


def test_the_most_recent_share_is_held_out_without_overlap() -> None:
    data = build(DataSpec(window=3, holdout=0.3, holdout_by="time"), rows([1] * 20), "end")
    assert numbers(data.train())[-1] == [11, 12, 13]
    assert numbers(data.validation()) == [[14, 15, 16], [15, 16, 17], [16, 17, 18], [17, 18, 19]]


def test_one_group_alone_is_split_by_time() -> None:
    data = build(DataSpec(holdout=0.25), rows([3] * 8), "end")
    assert numbers(data.validation()) == [[6], [7]]


def test_no_rows_give_no_samples() -> None:
    data = build(DataSpec(window=3), rows([]), "end")
    assert data.x.shape == (0, 3, 2)
    assert len(data.train()) == len(data.validation()) == 0


def test_parts_of_a_part_are_stable() -> None:
    data = build(DataSpec(holdout=0.5), rows([1, 2, 3, 4]), "end")
    assert len(data.train().train()) == 2
    assert len(data.train().validation()) == 0


def test_last_window_of_each_group() -> None:
    data = last_windows(3, rows([1, 1, 1, 1, 2, 2], label=[NAN] * 6), "end")
    assert numbers(data) == [[1, 2, 3], [4, 4, 5]]
    assert data.holdout.all()
    assert np.isnan(data.y).all()


def test_arrays_of_different_lengths_are_refused() -> None:
    source = rows([1, 1])
    broken = Rows(source.time, source.x, source.group[:1], source.label)
    with pytest.raises(ModelError, match=r'FF-MODEL-001: end "spindle-1": 2 times'):
        build(DataSpec(), broken, "spindle-1")


@given(
    groups=st.lists(st.integers(0, 4), max_size=40),
    window=st.integers(1, 6),
    stride=st.integers(1, 4),
    holdout=st.sampled_from([0.0, 0.1, 0.34, 0.5, 0.9]),
    by=st.sampled_from(["group", "time"]),
)
def test_no_row_is_both_trained_and_validated_on(
    groups: list[int], window: int, stride: int, holdout: float, by: str
) -> None:
    spec = DataSpec.model_validate({"window": window, "stride": stride, "holdout": holdout, "holdout_by": by})
    data = build(spec, rows([float(group) for group in groups]), "end")
    seen = {int(row) for window_ in numbers(data.train()) for row in window_}
    held = {int(row) for window_ in numbers(data.validation()) for row in window_}
    assert seen.isdisjoint(held)
    for window_ in numbers(data):
        assert len({groups[row] for row in window_}) == 1
        assert window_ == sorted(window_)
    if by == "group" and len(set(groups)) > 1:
        assert bool(held) == (holdout > 0)


@pytest.mark.parametrize("label", [2.0, -1.0, 0.5])
def test_a_label_that_is_no_class_is_refused(label: float) -> None:
    task = TaskSpec(name="quality", kind="classification", classes=2)
    assert class_numbers(task, np.array([0, 1], dtype=np.float32)).tolist() == [0, 1]
    with pytest.raises(ModelError, match=r"FF-MODEL-002.*whole number from 0 to 1"):
        class_numbers(task, np.array([0, label], dtype=np.float32))
