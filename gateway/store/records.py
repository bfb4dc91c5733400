"""What the store takes and gives, apart from blocks of samples and rows."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from connectors.contract import Sample
from gateway.blocks import FeatureBlock, SampleBlock
from gateway.errors import StoreError
from gateway.store.codec import Header, decode_samples, part_samples
from gateway.store.labels import Labelling

_Block = TypeVar("_Block", SampleBlock, FeatureBlock)


@dataclass(frozen=True)
class Stored:
    """A block as it lies in the file."""

    layer: str
    number: int
    count: int
    crc: int
    data: bytes

    @cached_property
    def header(self) -> Header:
        """What it says of itself. Raises ValueError."""
        return Header.of(self.data)

    def problem(self) -> str | None:
        """What is wrong with it; None for a block that is what was written."""
        try:
            if zlib.crc32(self.data) != self.crc:
                return "its checksum does not fit"
            if self.header.count != self.count:
                return f"it holds {self.header.count} entries, expected {self.count}"
        except (TypeError, ValueError) as error:
            return str(error)
        return None

    def decoded(self, decode: Callable[[bytes], _Block]) -> _Block:
        """The block, if it is what was written. Raises StoreError."""
        problem = self.problem()
        if problem is None:
            try:
                return decode(self.data)
            except ValueError as error:
                problem = str(error)
        raise StoreError(
            "FF-STORE-003",
            f"block {self.number} of the {self.layer} layer is damaged: {problem}",
            hint="features are made again by `fedfab gateway rebuild`; a raw block is lost: check the disk",
        )

    @cached_property
    def samples(self) -> SampleBlock:
        """A raw block decoded, once. Raises StoreError."""
        return self.decoded(decode_samples)


class RawBatch(NamedTuple):
    """A batch on its way into the raw layer: never empty; ``cursor`` None leaves the source's cursor as it is."""

    source: str
    samples: Sequence[Sample]
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class RawBlock:
    """One batch of the raw layer, or several that followed each other."""

    source: str
    id: int
    """Its number, of several the last; numbers grow in the order of arrival, over all sources."""
    stored: Stored
    rows: slice
    """Which samples of the stored block it is: that one may be merged of many."""

    def samples(self) -> SampleBlock:
        """What is in it. Raises StoreError where it is damaged."""
        block = self.stored.samples
        return part_samples(block, self.rows.start, self.rows.stop)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an end's feature rows were made with. Another digest means they must be made again."""

    digest: str
    fields: tuple[str, ...]
    labelling: Labelling


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an end's features have come: the raw block they are made up to, and what the pipeline keeps between blocks."""

    upto: int = 0
    state: str = ""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What another recipe would do to the rows that an end has now."""

    rows: int
    lost: int
    """Of these, rows that cannot be made again: the samples they came from are no longer in the raw layer."""


@dataclass(frozen=True, slots=True)
class Result:
    """One prediction that was given."""

    time: int
    model: str
    version: str
    end: str
    inputs: str
    """Digest of the inputs, hexadecimal."""
    outputs: Any
    """What was answered, JSON-serialisable."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A block that was set aside."""

    layer: str
    name: str
    block: int
    entries: int
    reason: str
    found: int
    """When, ns since the epoch."""
