"""What a plant file says: `plant.toml`, read and checked in full before anything is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from common import tomlfile
from tools.plant.physics import FIELDS, Kind, Regime

Protocol = Literal["opcua", "modbus", "sql"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$", max_length=48)]
Share = Annotated[float, Field(ge=0.0, le=1.2)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True)


class Plant(_Section):
    """The plant as a whole."""

    seed: int = Field(default=0, ge=0, description="The same seed gives the same series.")
    tick_s: float = Field(default=0.1, ge=0.0, description="Seconds from cycle to cycle of every machine.")
    wait_for_readers: bool = Field(
        default=False,
        description="Machines on OPC UA and Modbus begin when they are first read, so that nothing is missed.",
    )


class OpcUa(_Section):
    """The OPC UA server: one object per machine below Objects/Plant, node ids ``ns=2;s=<machine>.<field>``."""

    endpoint: str = Field(
        default="opc.tcp://127.0.0.1:4840/plant", pattern=r"^opc\.tcp://[^/:]+:\d+", description="Where it listens."
    )
    filler_tags: int = Field(default=0, ge=0, le=100_000, description="Further variables below Objects/Filler.")
    filler_s: float = Field(default=1.0, gt=0.0, description="Seconds from change to change of every filler variable.")


class Modbus(_Section):
    """The Modbus TCP server: one unit per machine, holding registers (run, cycle: u32; then each field: f32; ABCD)."""

    host: str = "127.0.0.1"
    port: int = Field(default=5020, ge=1, le=65535)


class Sql(_Section):
    """The historian: one table per machine (id, time_us, run, cycle, then each field)."""

    url: str = Field(
        default="sqlite:///historian.db", description="Any SQLAlchemy URL; SQLite paths are relative to the file."
    )


class Fault(_Section):
    """Something that goes wrong between the machine and its reader: at given cycles, or by chance."""

    kind: Literal["dropout", "frozen", "bad", "clock"] = Field(
        description="dropout: nothing arrives. frozen: the value stays. bad: no value, of bad quality. clock: source times jump."
    )
    fields: tuple[str, ...] = Field(default=(), description="For frozen and bad: which fields; empty: all.")
    at: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(), description="Cycles, counted from start, at which it begins."
    )
    probability: float = Field(default=0.0, ge=0.0, le=1.0, description="Chance of beginning in any other cycle.")
    cycles: int = Field(default=1, ge=1, description="How many cycles it lasts.")
    jump_s: float = Field(default=0.0, description="For clock: how far the source time jumps, back where negative.")


class _Stream(_Section):
    name: Name = Field(description="Name of the machine.")
    serve: Protocol = Field(description="Which server shows it.")
    unit: int | None = Field(
        default=None, ge=1, le=247, description="Modbus unit id; default: its place among the Modbus machines."
    )
    faults: tuple[Fault, ...] = Field(default=(), alias="fault")

    @property
    def table(self) -> str:
        """Its table in the historian."""
        return self.name.replace("-", "_")


class MachineConfig(_Stream):
    """A simulated machine."""

    kind: Kind
    runs: int | None = Field(default=None, ge=1, description="Runs to failure at the plant's pace; default: endless.")
    after_s: float | None = Field(
        default=None, gt=0, description="Seconds from cycle to cycle after these runs; default: it then stands still."
    )
    load: tuple[Share, Share] = Field(
        default=(0.4, 1.0), description="Range its jobs take their load from, in shares of the rated."
    )
    speed: tuple[Share, Share] = Field(default=(0.5, 1.0), description="Range its jobs take their speed from.")

    @property
    def regime(self) -> Regime:
        """How it is driven."""
        return Regime(self.load, self.speed)

    @model_validator(mode="after")
    def _known_fields(self) -> Self:
        unknown = {name for fault in self.faults for name in fault.fields} - set(FIELDS[self.kind])
        if unknown:
            raise ValueError(f"a {self.kind} has no field {sorted(unknown)}; it has {', '.join(FIELDS[self.kind])}")
        return self


class ReplayConfig(_Stream):
    """A recorded machine: the rows of a file, each delivered once, in order; then it stands still (run 0)."""

    file: Path = Field(description="CSV or Parquet with columns run, cycle and the fields; relative to this file.")
    tick_s: float | None = Field(default=None, ge=0.0, description="Seconds from row to row; default: the plant's.")


class PlantConfig(_Section):
    """A whole plant file."""

    plant: Plant = Plant()
    opcua: OpcUa = OpcUa()
    modbus: Modbus = Modbus()
    sql: Sql = Sql()
    machines: tuple[MachineConfig, ...] = Field(default=(), alias="machine")
    replays: tuple[ReplayConfig, ...] = Field(default=(), alias="replay")

    @property
    def streams(self) -> tuple[MachineConfig | ReplayConfig, ...]:
        """All machines, simulated and recorded."""
        return (*self.machines, *self.replays)

    def unit(self, name: str) -> int:
        """Modbus unit id of a machine."""
        served = [stream for stream in self.streams if stream.serve == "modbus"]
        return next(stream.unit or number for number, stream in enumerate(served, start=1) if stream.name == name)

    def having(self, *, filler_tags: int | None = None, seed: int | None = None) -> PlantConfig:
        """The same plant with another number of filler variables or another seed; None: as it is."""
        opcua = self.opcua if filler_tags is None else self.opcua.model_copy(update={"filler_tags": filler_tags})
        plant = self.plant if seed is None else self.plant.model_copy(update={"seed": seed})
        return self.model_copy(update={"opcua": opcua, "plant": plant})

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [stream.name for stream in self.streams]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the name {twice[0]} is given to more than one machine")
        units = [self.unit(stream.name) for stream in self.streams if stream.serve == "modbus"]
        if len(units) != len(set(units)):
            raise ValueError("two Modbus machines have the same unit id")
        return self


def load(path: Path) -> PlantConfig:
    """The plant described by a TOML file; its relative paths are taken from the file's folder.

    Raises FileError, naming file, line and option of everything that is wrong (`common.tomlfile.load`).
    """
    config = tomlfile.load(path, PlantConfig, hint="docs/plant.md lists every option of a plant file")
    return _resolved(config, path.resolve().parent)


def _resolved(config: PlantConfig, folder: Path) -> PlantConfig:
    prefix, _, rest = config.sql.url.partition("sqlite:///")
    url = f"sqlite:///{folder / rest}" if not prefix and rest else config.sql.url
    replays = tuple(replay.model_copy(update={"file": folder / replay.file}) for replay in config.replays)
    return config.model_copy(update={"sql": Sql(url=url), "replays": replays})
