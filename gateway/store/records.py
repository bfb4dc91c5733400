"""What the store takes and gives, apart from blocks of samples and rows."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from connectors.contract import Sample
from gateway.blocks import FeatureBlock, SampleBlock
from gateway.errors import StoreError
from gateway.store.codec import decode_samples
from gateway.store.labels import Labelling

_Block = TypeVar("_Block", SampleBlock, FeatureBlock)


@dataclass(frozen=True, slots=True)
class Stored:
    """A block as it lies in the file."""

    layer: str
    number: int
    count: int
    crc: int
    data: bytes

    def decoded(self, decode: Callable[[bytes], _Block]) -> _Block:
        """The block, if it is what was written. Raises StoreError."""
        problem = "its checksum does not fit"
        if zlib.crc32(self.data) == self.crc:
            try:
                block = decode(self.data)
                if len(block) == self.count:
                    return block
                problem = f"it holds {len(block)} entries, expected {self.count}"
            except ValueError as error:
                problem = str(error)
        raise StoreError(
            "FF-STORE-003",
            f"block {self.number} of the {self.layer} layer is damaged: {problem}",
            hint="features are made again by `fedfab gateway rebuild`; a raw block is lost: check the disk",
        )


class RawBatch(NamedTuple):
    """A batch on its way into the raw layer: never empty; ``cursor`` None leaves the source's cursor as it is."""

    source: str
    samples: Sequence[Sample]
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class RawBlock:
    """One batch of the raw layer."""

    source: str
    stored: Stored

    @property
    def id(self) -> int:
        """Its number; numbers grow in the order of arrival, over all sources."""
        return self.stored.number

    def samples(self) -> SampleBlock:
        """What is in it. Raises StoreError where it is damaged."""
        return self.stored.decoded(decode_samples)


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
