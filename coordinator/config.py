"""What a coordinator can be told: the one declaration that gives the parser, the checks and the documentation.

A configuration is validated with ``context={"folder": Path}``, the folder of its file; relative paths are relative to it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from trust.keys import SuiteName


def _from_the_folder(path: Path, info: ValidationInfo) -> Path:
    return Path((info.context or {}).get("folder", Path()), path)


_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:]+\]|[^:\[\]]+):\d{1,5}")

LocalPath = Annotated[Path, AfterValidator(_from_the_folder)]


class Section(BaseModel):
    """A table of the file: an option it does not know is an error, never ignored."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, validate_by_name=True, validate_by_alias=True
    )


class Coordinator(Section):
    """Who this coordinator is and where it keeps its data."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
        max_length=64,
        description="Name of this coordinator, as in its certificate.",
    )
    data_dir: LocalPath = Field(
        default=Path("data"), description="Folder for database, blobs, models and checkpoints; relative to this file."
    )
    database: str | None = Field(
        default=None,
        description='URL of the database, e.g. "postgresql://fedfab@db.example/fedfab" (the password in ~/.pgpass); '
        "default: SQLite in data_dir.",
    )


class Trust(Section):
    """Keys and certificates (`fedfab pki` makes them)."""

    identity: LocalPath = Field(
        default=Path("identity"),
        description="Folder with the coordinator's key and certificate and the CA's certificate, for each suite; relative to this file.",
    )


class Listen(Section):
    """One address to listen on, always with mutual TLS: for gateways and operators."""

    address: str = Field(default="127.0.0.1:8443", description="host:port; [::]:8443 is every address.")
    suite: SuiteName = Field(default="gm", description="gm: SM2, SM3, SM4 (RFC 8998). intl: P-256, SHA-256, AES.")

    @field_validator("address")
    @classmethod
    def _host_and_port(cls, address: str) -> str:
        if not _ADDRESS.fullmatch(address):
            raise ValueError(f'expected host:port, such as 127.0.0.1:8443 or [::]:8443, got "{address}"')
        return address

    @property
    def host(self) -> str:
        """Host to listen on, without brackets."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """Port to listen on; 0 asks for a free one."""
        return int(self.address.rpartition(":")[2])


class Limits(Section):
    """What a coordinator takes on at a time."""

    running_tasks: int = Field(
        default=4, ge=1, le=1000, description="Tasks of layer cloud that run at the same time; others wait."
    )
    request_kib: int = Field(default=256, ge=1, le=65536, description="Largest body of a call of the management API.")


class Log(Section):
    """What goes to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="The least that is shown.")
    style: Literal["text", "json"] = Field(default="text", description="Lines for a person, or JSON for a machine.")


class Config(Section):
    """A whole configuration."""

    coordinator: Coordinator
    trust: Trust
    listens: tuple[Listen, ...] = Field(
        default=(Listen(),), min_length=1, alias="listen", description="Addresses to listen on."
    )
    limits: Limits = Limits()
    log: Log = Log()

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        addresses = [listen.address for listen in self.listens if listen.port]
        for address in addresses:
            if addresses.count(address) > 1:
                raise ValueError(f'two [[listen]] have the address "{address}"; each suite needs an address of its own')
        return self

    @property
    def database_url(self) -> str:
        """URL of the database."""
        return self.coordinator.database or f"sqlite:///{self.coordinator.data_dir / 'coordinator.db'}"
