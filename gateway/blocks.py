"""The two shapes data takes inside the gateway: columns of samples as they came, and columns of feature rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from connectors.contract import Quality, Sample, Value


class Kind(IntEnum):
    """What a value is; tells apart 1, 1.0 and True, which compare equal."""

    NONE = 0
    NUMBER = 1
    INTEGER = 2
    BOOLEAN = 3
    TEXT = 4
    BIG_INTEGER = 5


@dataclass(frozen=True, slots=True)
class SampleBlock:
    """n samples of one source in the order of their arrival, column by column."""

    tags: tuple[str, ...]
    """Names that `tag` points into."""
    tag: NDArray[np.uint32]
    kind: NDArray[np.uint8]
    number: NDArray[np.float64]
    """The value as a number; NaN for None and for text."""
    integer: NDArray[np.int64]
    """The exact value where `kind` is INTEGER, the position in `texts` where it is TEXT or BIG_INTEGER, else 0."""
    texts: tuple[str, ...]
    quality: NDArray[np.uint8]
    source_time: NDArray[np.int64]
    gateway_time: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tag)

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> SampleBlock:
        """Turn samples into columns; nothing is lost."""
        count = len(samples)
        tags: dict[str, int] = {}
        texts: list[str] = []
        kind = np.zeros(count, np.uint8)
        number = np.full(count, np.nan)
        integer = np.zeros(count, np.int64)
        for i, value in enumerate([sample.value for sample in samples]):
            if type(value) is float:  # by far the most common
                kind[i], number[i] = Kind.NUMBER, value
            elif isinstance(value, bool):
                kind[i], number[i] = Kind.BOOLEAN, value
            elif isinstance(value, int):
                number[i] = value
                if -(2**63) <= value < 2**63:
                    kind[i], integer[i] = Kind.INTEGER, value
                else:
                    kind[i], integer[i] = Kind.BIG_INTEGER, len(texts)
                    texts.append(str(value))
            elif isinstance(value, str):
                kind[i], integer[i] = Kind.TEXT, len(texts)
                texts.append(value)
            elif value is not None:
                kind[i], number[i] = Kind.NUMBER, float(value)
        return cls(
            tag=np.fromiter((tags.setdefault(sample.tag, len(tags)) for sample in samples), np.uint32, count),
            tags=tuple(tags),
            kind=kind,
            number=number,
            integer=integer,
            texts=tuple(texts),
            quality=np.fromiter((sample.quality for sample in samples), np.uint8, count),
            source_time=np.fromiter((sample.source_time for sample in samples), np.int64, count),
            gateway_time=np.fromiter((sample.gateway_time for sample in samples), np.int64, count),
        )

    def samples(self) -> list[Sample]:
        """The samples again, exactly as they came."""
        columns = (self.tag, self.quality, self.source_time, self.gateway_time)
        return [
            Sample(self.tags[tag], self.value(i), Quality(quality), source_time, gateway_time)
            for i, (tag, quality, source_time, gateway_time) in enumerate(
                zip(*(column.tolist() for column in columns), strict=True)
            )
        ]

    def positions(self) -> dict[str, NDArray[np.intp]]:
        """Where each tag stands in the columns, in the order of arrival."""
        order = np.argsort(self.tag, kind="stable")
        borders = np.searchsorted(self.tag[order], np.arange(len(self.tags) + 1))
        return {tag: order[borders[i] : borders[i + 1]] for i, tag in enumerate(self.tags)}

    def value(self, i: int) -> Value:
        """The i-th value with its own type."""
        match self.kind[i]:
            case Kind.NUMBER:
                return float(self.number[i])
            case Kind.INTEGER:
                return int(self.integer[i])
            case Kind.BOOLEAN:
                return bool(self.number[i])
            case Kind.TEXT:
                return self.texts[int(self.integer[i])]
            case Kind.BIG_INTEGER:
                return int(self.texts[int(self.integer[i])])
            case _:
                return None


@dataclass(frozen=True, slots=True)
class FeatureBlock:
    """n feature rows of one end in the order of time."""

    time: NDArray[np.int64]
    """[n] nanoseconds, strictly increasing."""
    x: NDArray[np.float64]
    """[n, f] in the order of the cluster's features; NaN is missing."""
    group: NDArray[np.float64]
    """[n] value of the group field, 0 where the cluster has none."""
    label: NDArray[np.float64]
    """[n] value of the field the label is made from (`gateway.store.labels`); NaN is missing."""

    def __len__(self) -> int:
        return len(self.time)

    def part(self, start: int, end: int) -> FeatureBlock:
        """The rows from position ``start`` to before ``end``."""
        rows = slice(start, end)
        return FeatureBlock(self.time[rows], self.x[rows], self.group[rows], self.label[rows])

    def after(self, time: int) -> FeatureBlock:
        """The rows later than this time."""
        return self.part(int(np.searchsorted(self.time, time, side="right")), len(self))

    def upto(self, time: int) -> FeatureBlock:
        """The rows not later than this time."""
        return self.part(0, int(np.searchsorted(self.time, time, side="right")))
