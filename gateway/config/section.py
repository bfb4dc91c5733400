"""What all tables of the file have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of the file: an option it does not know is an error, never ignored."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True, validate_default=True
    )


class Named(Protocol):
    """What has a name that is unique among its like."""

    @property
    def name(self) -> str:
        """Its name."""


Item = TypeVar("Item", bound=Named)


def named(items: Iterable[Item], name: str) -> Item:
    """The one of this name. Raises KeyError."""
    for item in items:
        if item.name == name:
            return item
    raise KeyError(name)
