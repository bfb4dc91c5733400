"""Rows of one end become samples: sliding windows inside a group, and a hold-out that training never sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelError
from models.spec import DataSpec, TaskSpec


@dataclass(frozen=True, slots=True)
class Rows:
    """Feature rows of one end, in any order."""

    time: NDArray[np.int64]
    """Nanoseconds since the epoch, UTC, shape (n,)."""
    x: NDArray[np.float64]
    """Features in the order of the schema and in its units, categories as numeric codes; NaN: missing. Shape (n, f)."""
    group: NDArray[np.float64]
    """Which run a row belongs to, shape (n,); one number throughout where there are no runs. NaN: unknown."""
    label: NDArray[np.float64]
    """Label in the schema's unit, or number of the class, shape (n,); NaN: unlabelled."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled samples of one end. What trains takes `train`, what validates takes `validation`, both of the same data set."""

    x: NDArray[np.float32]
    """Windows in raw units, oldest row first, shape (n, window, f)."""
    y: NDArray[np.float32]
    """Label of each window's last row, shape (n,)."""
    holdout: NDArray[np.bool_]
    """True: for validation only, shape (n,)."""
    group: NDArray[np.float64]
    """Group of each window, shape (n,)."""
    time: NDArray[np.int64]
    """Time of each window's last row, shape (n,)."""

    def __len__(self) -> int:
        return len(self.y)

    def train(self) -> Dataset:
        """The samples to learn from."""
        return self._part(~self.holdout)

    def validation(self) -> Dataset:
        """The samples held out."""
        return self._part(self.holdout)

    def _part(self, chosen: NDArray[np.bool_]) -> Dataset:
        if chosen.all():
            return self
        return Dataset(self.x[chosen], self.y[chosen], self.holdout[chosen], self.group[chosen], self.time[chosen])


def build(spec: DataSpec, rows: Rows, name: str) -> Dataset:
    """Cut the rows of the end ``name`` into samples; deterministic, whatever the order of the rows.

    Rows with an unknown group, or a feature that is missing or beyond float32, never enter a window; those left are taken by group in
    order of time. The first window of a group starts at its first row, and every `DataSpec.stride` rows the next; a group shorter than
    the window gives one window, padded at the front with its first row. A window whose last row is unlabelled is no sample.

    Held out are, by group, whole groups spread evenly in order of first appearance, the second one always among them; by time (and
    where there is only one group) the most recent share of the rows: windows that reach over that border are dropped.
    Raises ModelError FF-MODEL-001 where the arrays of ``rows`` do not fit together.
    """
    ordered = _Ordered.of(rows, name)
    first, last = _windows(ordered.starts, ordered.lengths, spec.window, spec.stride)
    labelled = np.isfinite(ordered.label[last])
    first, last = first[labelled], last[labelled]
    groups = ordered.number[last]
    if spec.holdout_by == "group" and len(np.unique(groups)) > 1:
        held = np.isin(groups, _spread(np.unique(groups), spec.holdout))
        kept = np.ones(len(last), dtype=np.bool_)
    else:
        held, kept = _most_recent(ordered.time, first, last, spec.holdout)
    return ordered.cut(first[kept], last[kept], spec.window, held[kept])


def last_windows(window: int, rows: Rows, name: str) -> Dataset:
    """The most recent window of each group, all held out: what is predicted on-line, and how run-to-failure tests are scored.

    Unlike `build`, unlabelled windows are kept (``y`` is NaN). Raises ModelError FF-MODEL-001 as `build` does.
    """
    ordered = _Ordered.of(rows, name)
    last = ordered.starts + ordered.lengths - 1
    return ordered.cut(ordered.starts, last, window, np.ones(len(last), dtype=np.bool_))


def class_numbers(spec: TaskSpec, y: NDArray[np.float32]) -> NDArray[np.int64]:
    """Labels of a classification as class numbers, shape (n,). Raises ModelError FF-MODEL-002 on anything but 0 … classes - 1."""
    numbers = y.astype(np.int64)
    wrong = (numbers != y) | (numbers < 0) | (numbers >= spec.classes)
    if wrong.any():
        raise ModelError(
            "FF-MODEL-002",
            f'task "{spec.name}": a label is {y[wrong][0]:g}, expected a whole number from 0 to {spec.classes - 1}',
            hint='set "classes" in the task to the number of classes, or map the label to class numbers in the cluster\'s '
            "configuration",
        )
    return numbers


@dataclass(frozen=True, slots=True)
class _Ordered:
    """Usable rows, group after group in order of first appearance, each by time."""

    time: NDArray[np.int64]
    x: NDArray[np.float32]
    group: NDArray[np.float64]
    label: NDArray[np.float32]
    number: NDArray[np.int64]
    """Number of each row's group, in order of first appearance, shape (n,)."""
    starts: NDArray[np.int64]
    """First row of each group, shape (groups,)."""
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Rows, name: str) -> _Ordered:
        n = len(rows.time)
        if rows.x.ndim != 2 or {len(rows.x), len(rows.group), len(rows.label)} != {n}:
            raise ModelError(
                "FF-MODEL-001",
                f'end "{name}": {n} times come with features {rows.x.shape}, groups {rows.group.shape} and labels {rows.label.shape}',
                hint="this is a defect of what made the rows, not of the plant; please report it",
            )
        with np.errstate(over="ignore"):
            x, label = rows.x.astype(np.float32), rows.label.astype(np.float32)
        usable = np.flatnonzero(np.isfinite(x).all(axis=1) & np.isfinite(rows.group))
        by_time = usable[np.argsort(rows.time[usable], kind="stable")]
        _, first, inverse = np.unique(rows.group[by_time], return_index=True, return_inverse=True)
        number = np.argsort(np.argsort(first))[inverse]
        by_group = np.argsort(number, kind="stable")
        order = by_time[by_group]
        lengths = np.bincount(number, minlength=len(first)).astype(np.int64)
        return cls(
            time=rows.time[order],
            x=x[order],
            group=rows.group[order],
            label=label[order],
            number=number[by_group],
            starts=np.cumsum(lengths) - lengths,
            lengths=lengths,
        )

    def cut(
        self, first: NDArray[np.int64], last: NDArray[np.int64], window: int, holdout: NDArray[np.bool_]
    ) -> Dataset:
        """The windows that end at the rows ``last``; a row before ``first`` is replaced by it, which is the padding."""
        index = np.maximum(last[:, None] - np.arange(window - 1, -1, -1), first[:, None])
        return Dataset(self.x[index], self.label[last], holdout, self.group[last], self.time[last])


def _windows(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], window: int, stride: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last row of every window."""
    counts = np.maximum(lengths - window, 0) // stride + 1
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    first = np.repeat(starts, counts) + within * stride
    last = np.minimum(first + window, np.repeat(starts + lengths, counts)) - 1
    return first, last


def _spread(groups: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """``share`` of the groups, evenly spread; never the first, always the second (if any are wanted).

    Which groups are held out does not change when later ones are added, so nothing once trained on is validated on later.
    """
    if share == 0:
        return groups[:0]
    steps = np.floor(np.arange(len(groups) + 1) * share + max(0.0, 1 - 2 * share) + 1e-9)
    held: NDArray[np.bool_] = np.diff(steps) > 0
    return groups[held]


def _most_recent(
    time: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64], share: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which windows lie in the most recent ``share`` of the rows, and which lie on one side of that border."""
    held_rows = round(len(time) * share)
    if held_rows == 0:
        return np.zeros(len(last), dtype=np.bool_), np.ones(len(last), dtype=np.bool_)
    border = np.sort(time)[-held_rows]
    held = time[first] >= border
    return held, held | (time[last] < border)
