"""What every connector is: a typed configuration and five steps, `init -> start -> read ... -> stop`, plus `probe`.

The connector speaks its protocol; the runtime that drives it owns retry, back-off and supervision:

    connector = create(config)              # pure: no network, may refuse the configuration
    await connector.start(cursor)           # may raise ConnectorError and be called again later
    while True:
        batch = await connector.read()      # waits for data; raising means "stop me, start me again later"
        store.append(batch)                 # samples and cursor in one transaction
        await batch.acknowledge()           # only now may the connector forget the batch
    await connector.stop()                  # safe after a failed start, and twice
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator

Value = float | int | bool | str | None


class Quality(IntEnum):
    """How far a value may be trusted, after OPC UA Part 8 (the top two bits of a status code)."""

    GOOD = 0
    UNCERTAIN = 1
    BAD = 2


class Sample(NamedTuple):
    """One value of one tag. A failed read is a sample of BAD quality whose value is None; it is never a zero.

    Times are nanoseconds since the epoch, UTC. ``source_time`` is the machine's own; where the protocol carries none it equals
    ``gateway_time``, the moment this gateway received the value.
    """

    tag: str
    value: Value
    quality: Quality
    source_time: int
    gateway_time: int


async def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one `read` brought: a list, or where thousands come at a time a `connectors.samples.SampleBlock`.

    ``cursor`` (opaque to all but its connector) is stored with the samples in one transaction and handed to `start` after a restart;
    ``acknowledge`` is awaited once they are durable. ``missed`` says how many readings were due before and could not be taken in time."""

    samples: Sequence[Sample]
    cursor: str | None = None
    acknowledge: Callable[[], Awaitable[None]] = _nothing
    missed: int = 0


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=64)]


class TagConfig(BaseModel):
    """What all tags have; each connector adds where to find the value."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name = Field(description="Name of the tag, unique within its source.")
    unit: str = Field(default="", description="Unit of the value as delivered, e.g. 'degC', 'mm/s'. Empty: none.")


class SourceConfig(BaseModel):
    """What all sources have; each connector subclasses it, fixes ``type`` and the kind of ``tag``, and adds its own options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name = Field(description="Name of the source, unique within the gateway.")
    type: str = Field(description="Which connector reads it.")
    enabled: bool = Field(default=True, description="False keeps the section but does not read the source.")
    tag: tuple[TagConfig, ...] = Field(min_length=1, description="The values to read, one `[[source.tag]]` each.")

    @field_validator("tag")
    @classmethod
    def _names_are_unique(cls, tags: tuple[TagConfig, ...]) -> tuple[TagConfig, ...]:
        seen: set[str] = set()
        for tag in tags:
            if tag.name in seen:
                raise ValueError(f'two tags are called "{tag.name}"; give each tag of a source a name of its own')
            seen.add(tag.name)
        return tags

    def tag_names(self) -> tuple[str, ...]:
        """Names of all tags this source delivers, in the order of the configuration."""
        return tuple(tag.name for tag in self.tag)

    def tag_units(self) -> dict[str, str]:
        """Unit of each tag, by name."""
        return {tag.name: tag.unit for tag in self.tag}


class Connector(Protocol):
    """A reader of one source. No method is called concurrently with another of the same connector."""

    async def start(self, cursor: str | None) -> None:
        """Connect, and go on behind ``cursor`` (None at the very first start). Raises ConnectorError."""

    async def read(self) -> Batch:
        """Wait for the next batch, never empty. Raises ConnectorError when the connection is lost; cancellation is safe."""
        ...

    async def stop(self) -> None:
        """Disconnect and free everything. Never raises for a peer that is already gone."""

    async def probe(self) -> Sequence[Sample]:
        """One reading per tag, in the order of the configuration, on a connection of its own that is closed again.

        A tag that cannot be read comes back BAD with None. Raises ConnectorError when the source cannot be reached.
        """
        ...


class ConnectorType(NamedTuple):
    """One line of the registry: the configuration model of a type, and how to make its connector."""

    config: type[SourceConfig]
    create: Callable[..., Connector]
    stability: Literal["stable", "preview"] = "stable"
