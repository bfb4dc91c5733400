"""Many samples as columns: what a connector that reads thousands of values a second makes instead of a `Sample` for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, overload

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


class Values(NamedTuple):
    """n values, column by column."""

    kind: NDArray[np.uint8]
    number: NDArray[np.float64]
    """The value as a number; NaN for None and for text."""
    integer: NDArray[np.int64]
    """The exact value where `kind` is INTEGER, the position in `texts` where it is TEXT or BIG_INTEGER, else 0."""
    texts: tuple[str, ...]

    @classmethod
    def of(cls, values: Sequence[Value]) -> Values:
        """Turn values into columns; nothing is lost."""
        count = len(values)
        types = set(map(type, values))
        if types == {float}:  # by far the most common
            number = np.array(values, np.float64)
            return cls(np.full(count, Kind.NUMBER, np.uint8), number, np.zeros(count, np.int64), ())
        if types == {int}:
            with suppress(OverflowError):
                integer = np.array(values, np.int64)
                return cls(np.full(count, Kind.INTEGER, np.uint8), integer.astype(np.float64), integer, ())
        return cls._mixed(values)

    @classmethod
    def _mixed(cls, values: Sequence[Value]) -> Values:
        kinds: list[int] = []
        numbers: list[float] = []
        integers: list[int] = []
        texts: list[str] = []
        for value in values:
            kind, number, integer = Kind.NUMBER, float("nan"), 0
            if type(value) is float:
                number = value
            elif isinstance(value, bool):
                kind, number = Kind.BOOLEAN, float(value)
            elif isinstance(value, int):
                number = float(value)
                if -(2**63) <= value < 2**63:
                    kind, integer = Kind.INTEGER, value
                else:
                    kind, integer = Kind.BIG_INTEGER, len(texts)
                    texts.append(str(value))
            elif isinstance(value, str):
                kind, integer = Kind.TEXT, len(texts)
                texts.append(value)
            elif value is None:
                kind = Kind.NONE
            else:
                number = float(value)
            kinds.append(kind)
            numbers.append(number)
            integers.append(integer)
        return cls(np.array(kinds, np.uint8), np.array(numbers, np.float64), np.array(integers, np.int64), tuple(texts))


@dataclass(frozen=True, slots=True, eq=False)
class SampleBlock(Sequence[Sample]):
    """n samples of one source in the order of their arrival, column by column. As a sequence it gives them one by one."""

    tags: tuple[str, ...]
    """Names that `tag` points into."""
    tag: NDArray[np.uint32]
    kind: NDArray[np.uint8]
    number: NDArray[np.float64]
    """As in `Values`, like `integer` and `texts`."""
    integer: NDArray[np.int64]
    texts: tuple[str, ...]
    quality: NDArray[np.uint8]
    source_time: NDArray[np.int64]
    gateway_time: NDArray[np.int64]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> SampleBlock:
        """Turn samples into columns; nothing is lost. A block is returned as it is."""
        if isinstance(samples, SampleBlock):
            return samples
        count = len(samples)
        names, values, quality, source_time, gateway_time = zip(*samples, strict=True) if samples else ((),) * 5
        tags = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return cls(
            tuple(tags),
            np.fromiter(map(tags.__getitem__, names), np.uint32, count),
            *Values.of(values),
            np.array(quality, np.uint8),
            np.array(source_time, np.int64),
            np.array(gateway_time, np.int64),
        )

    @property
    def bad(self) -> int:
        """How many samples are of bad quality."""
        return int(np.count_nonzero(self.quality == Quality.BAD))

    def __len__(self) -> int:
        return len(self.tag)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples())

    @overload
    def __getitem__(self, chosen: int) -> Sample: ...

    @overload
    def __getitem__(self, chosen: slice) -> Sequence[Sample]: ...

    def __getitem__(self, chosen: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(chosen, slice):
            return self.samples()[chosen]
        return Sample(
            self.tags[self.tag[chosen]],
            self.value(chosen),
            Quality(self.quality[chosen]),
            int(self.source_time[chosen]),
            int(self.gateway_time[chosen]),
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
        borders = np.searchsorted(self.tag[order], np.arange(len(self.tags) + 1)).tolist()
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
