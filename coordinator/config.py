"""What a coordinator can be told: the one declaration that gives the parser, the checks and the documentation.

A configuration is validated with ``context={"folder": Path}``, the folder of its file; relative paths are relative to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from sqlalchemy import make_url

from common.options import Address, Listening, LocalFile, Log, Service, is_loopback
from common.secret import Secret
from coordinator.layout import LAYOUT
from trust.keys import SuiteName


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
    data_dir: LocalFile = Field(
        default=Path("data"), description="Folder for database, blobs, models and checkpoints; relative to this file."
    )


class Database(Section):
    """Where tasks, models and messages are kept."""

    url: Address | None = Field(
        default=None,
        description='URL of the database, e.g. "postgresql://fedfab@db.example/fedfab", never with a password; '
        "default: SQLite in data_dir.",
    )
    password: Secret | None = Field(
        default=None,
        description='Of the user in the URL: { file = "..." }, { credential = "NAME" } or { env = "NAME" }; default: ~/.pgpass.',
    )


class Trust(Section):
    """Keys and certificates (`fedfab pki` makes them)."""

    identity: LocalFile = Field(
        default=Path("identity"),
        description="Folder with the coordinator's key and certificate and the CA's certificate, for each suite; relative to this file.",
    )


class Listen(Section):
    """One address to listen on, always with mutual TLS: for gateways and operators."""

    address: Listening = Field(default="127.0.0.1:8443", description="host:port; [::]:8443 is every address.")
    suite: SuiteName = Field(default="gm", description="gm: SM2, SM3, SM4 (RFC 8998). intl: P-256, SHA-256, AES.")
    proxy: str | None = Field(
        default=None,
        description="Name in the certificate (role proxy) of a reverse proxy that ends the gateways' TLS here and passes their "
        "certificates on in the header Client-Cert (RFC 9440). Nobody else's header is looked at.",
    )

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
    blob_gib: int = Field(default=4, ge=1, le=1024, description="Largest model, or update, that is taken, in GiB.")
    blobs_gib_per_member: int = Field(
        default=16,
        ge=1,
        le=65536,
        description="What the models of one gateway may take of the disk while they wait to be fetched, in GiB.",
    )
    request_kib: int = Field(default=256, ge=1, le=65536, description="Largest body of a call of the management API.")


class Metrics(Section):
    """Where Prometheus reads, beside GET /metrics of every address in [[listen]], which is for operators."""

    listen: str | None = Field(
        default=None,
        description="host:port of plain HTTP without a certificate, on loopback only; default: none.",
    )

    @field_validator("listen")
    @classmethod
    def _on_loopback(cls, listen: str | None) -> str | None:
        if listen is None:
            return None
        host, _, port = listen.rpartition(":")
        if not port.isdigit() or not is_loopback(host.strip("[]")):
            raise ValueError(f'expected an address on loopback, such as 127.0.0.1:9464, got "{listen}"')
        return listen


class Config(Section):
    """A whole configuration."""

    version: int = Field(
        default=LAYOUT.version,
        ge=1,
        le=LAYOUT.version,
        description="Version of this file's layout; an older one works, and `fedfab coordinator config migrate` brings it here.",
    )
    coordinator: Coordinator
    database: Database = Database()
    trust: Trust
    listens: tuple[Listen, ...] = Field(
        default=(Listen(),), min_length=1, alias="listen", description="Addresses to listen on."
    )
    limits: Limits = Limits()
    log: Log = Log()
    service: Service = Service()
    metrics: Metrics = Metrics()

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        addresses = [listen.address for listen in self.listens if listen.port]
        for address in addresses:
            if addresses.count(address) > 1:
                raise ValueError(f'two [[listen]] have the address "{address}"; each suite needs an address of its own')
        return self

    @property
    def database_url(self) -> str:
        """URL of the database with the password, read anew. Raises SecretError."""
        url = self.database.url or f"sqlite:///{self.coordinator.data_dir / 'coordinator.db'}"
        if self.database.password is None:
            return url
        return make_url(url).set(password=self.database.password.read()).render_as_string(hide_password=False)
