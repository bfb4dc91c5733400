"""What the store takes and gives, apart from blocks of samples and rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.blocks import SampleBlock
from gateway.store.labels import Labelling


@dataclass(frozen=True, slots=True)
class RawBlock:
    """One batch of the raw layer. Numbers grow in the order of arrival, over all sources."""

    id: int
    source: str
    samples: SampleBlock


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
