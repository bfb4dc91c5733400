"""What a plant engineer writes about a Modbus device; checked in full without a network."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from connectors.contract import SourceConfig, TagConfig

Table = Literal["holding", "input", "coil", "discrete"]
DataType = Literal["u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bool", "string"]
Order = Literal["ABCD", "CDAB", "BADC", "DCBA"]

_REGISTERS: dict[DataType, int] = {
    "u16": 1,
    "i16": 1,
    "u32": 2,
    "i32": 2,
    "f32": 2,
    "u64": 4,
    "i64": 4,
    "f64": 4,
    "bool": 1,
}


class ModbusTag(TagConfig):
    """One value in a device's memory."""

    table: Table = Field(
        default="holding",
        description="Where it is: holding registers (4xxxx), input registers (3xxxx), coils (0xxxx), discrete inputs (1xxxx).",
    )
    address: int = Field(ge=0, le=65535, description="Address counted from 0: register 40001 of a manual is holding 0.")
    type: DataType | None = Field(
        default=None, description="How to read it. Default: u16 for registers, bool for coils and discrete inputs."
    )
    order: Order | None = Field(
        default=None,
        description="Order of the bytes in the device, A the most significant. Default: that of the source.",
    )
    bit: int | None = Field(
        default=None, ge=0, le=15, description="With type bool in a register: which bit, 0 the least significant."
    )
    length: int | None = Field(
        default=None, ge=1, le=125, description="With type string: registers, two characters in each."
    )
    scale: float = Field(default=1.0, description="The value delivered is raw * scale + offset.")
    offset: float = Field(default=0.0, description="The value delivered is raw * scale + offset.")
    unit_id: int | None = Field(default=None, ge=0, le=255, description="Unit (slave) id. Default: that of the source.")

    @property
    def is_bit(self) -> bool:
        """Whether the table holds bits, not registers."""
        return self.table in ("coil", "discrete")

    @property
    def data(self) -> DataType:
        """The type, with the table's default."""
        return self.type or ("bool" if self.is_bit else "u16")

    @property
    def size(self) -> int:
        """Registers, or bits, that it takes."""
        return self.length or _REGISTERS[self.data]

    @model_validator(mode="after")
    def _fits_the_table(self) -> Self:
        if self.is_bit:
            given = [name for name in ("order", "bit", "length") if getattr(self, name) is not None]
            if self.data != "bool" or given or self._is_scaled():
                wrong = f'type = "{self.type}"' if self.data != "bool" else (given or ["scale or offset"])[0]
                raise ValueError(f'tag "{self.name}": a {self.table} is a single bit, {wrong} has no meaning there')
        elif self.data == "bool" and self.bit is None:
            raise ValueError(f'tag "{self.name}": type bool in a register needs bit = 0 ... 15')
        elif self.data != "bool" and self.bit is not None:
            raise ValueError(f'tag "{self.name}": bit goes with type = "bool", not with "{self.data}"')
        return self

    @model_validator(mode="after")
    def _fits_the_type(self) -> Self:
        if (self.data == "string") != (self.length is not None):
            raise ValueError(f'tag "{self.name}": length goes with type = "string", and a string needs it')
        if self.data in ("bool", "string") and self._is_scaled():
            raise ValueError(f'tag "{self.name}": a {self.data} cannot have scale or offset')
        if self.order in ("CDAB", "DCBA") and self.data in ("u16", "i16", "bool", "string"):
            raise ValueError(
                f'tag "{self.name}": order {self.order} swaps the words of one number, and a {self.data} has no second word; '
                "use ABCD (high byte first) or BADC (low byte first)"
            )
        if self.address + self.size > 65536:
            raise ValueError(f'tag "{self.name}": {self.size} registers from address {self.address} run past 65535')
        return self

    def _is_scaled(self) -> bool:
        return self.scale != 1.0 or self.offset != 0.0


class ModbusConfig(SourceConfig):
    """One Modbus TCP device, or a gateway with several units behind it."""

    type: Literal["modbus"] = Field(default="modbus", description="Which connector reads it: Modbus TCP.")
    host: str = Field(min_length=1, description="Host name or IP address.")
    port: int = Field(default=502, ge=1, le=65535, description="TCP port.")
    unit_id: int = Field(default=1, ge=0, le=255, description="Unit (slave) id of tags that do not give their own.")
    order: Order = Field(default="ABCD", description="Byte order of tags that do not give their own.")
    every_s: float = Field(default=1.0, ge=0.001, le=86400.0, description="Seconds from poll to poll.")
    timeout_s: float = Field(
        default=3.0, gt=0.0, le=300.0, description="Seconds to wait for a connection or an answer."
    )
    max_gap: int = Field(
        default=16, ge=0, le=2000, description="Registers or bits nobody asked for that a read may pass over; 0: none."
    )
    max_registers: int = Field(default=125, ge=1, le=125, description="Registers in one read; less for a small device.")
    max_bits: int = Field(default=2000, ge=1, le=2000, description="Coils or discrete inputs in one read.")
    silent_unit_s: float = Field(
        default=10.0,
        ge=0.0,
        description="Seconds before a unit that did not answer is asked again; its tags are BAD till then.",
    )
    tag: tuple[ModbusTag, ...] = Field(min_length=1, description="The values to read.")

    @model_validator(mode="after")
    def _tags_fit_a_read(self) -> Self:
        for tag in self.tag:
            if not tag.is_bit and tag.size > self.max_registers:
                raise ValueError(
                    f'tag "{tag.name}" takes {tag.size} registers and would be torn: max_registers is {self.max_registers}'
                )
        return self
