"""The gateway as a member of the federation: who it is, and which aggregator it joins."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from connectors.options import LocalFile
from gateway.config.section import Section, is_loopback


class Trust(Section):
    """Keys and certificates (`fedfab pki` makes them)."""

    identity: LocalFile = Field(
        default=Path("identity"),
        description="Folder with this gateway's key and certificate and the CA's certificate; relative to this file.",
    )
    suite: Literal["gm", "intl"] = Field(
        default="gm", description="gm: SM2, SM3, SM4. intl: P-256, SHA-256, AES. Both ends must agree."
    )


class Coordinator(Section):
    """The aggregator this gateway is a member of. Without this section the gateway learns its clusters alone."""

    url: str = Field(description="Where it listens: https://host:port. Plain http is for loopback only.")

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ValueError(f'expected a URL such as "https://cloud.example:8443", got "{self.url}"')
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError(f'expected https, because {parts.hostname} is not this machine, got "{self.url}"')
        return self
