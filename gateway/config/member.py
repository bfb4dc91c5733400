"""The gateway as a member of the federation: who it is, and which aggregator it joins."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from common.options import Address, LocalFile, is_loopback
from common.secret import Secret
from federation.route import OutboxLimits, Route
from gateway.config.section import Section


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
    proxy: Address | None = Field(
        default=None,
        description="HTTP proxy to go through by CONNECT: http://user@host:port, without the password. "
        "The environment's proxy variables are not looked at.",
    )
    proxy_password: Secret | None = Field(
        default=None, description='Of the proxy\'s user: { file = "proxy.password" }.'
    )
    poll_s: float = Field(
        default=30.0,
        ge=1,
        le=60,
        description="How long a question for messages waits at most; where something on the way cuts silent lines sooner, "
        "shorter ones are tried by itself.",
    )
    piece_mib: float = Field(
        default=8.0,
        ge=0.0625,
        le=64,
        description="Models travel in requests of at most this size; where something on the way refuses them, smaller ones "
        "are tried by itself.",
    )
    outbox_messages: int = Field(
        default=10_000, ge=100, description="Messages that wait at most while the coordinator is away."
    )
    outbox_mib: int = Field(default=8192, ge=64, description="What they may take of the disk, models included.")

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ValueError(f'expected a URL such as "https://cloud.example:8443", got "{self.url}"')
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError(f'expected https, because {parts.hostname} is not this machine, got "{self.url}"')
        return self

    @model_validator(mode="after")
    def _through_a_proxy(self) -> Self:
        if self.proxy is None:
            if self.proxy_password is not None:
                raise ValueError("proxy_password belongs to proxy")
            return self
        parts = urlsplit(self.proxy)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f'proxy: expected an address such as "http://user@proxy:3128", got "{self.proxy}"')
        if (self.proxy_password is None) != (parts.username is None):
            raise ValueError('proxy: user and password come together: "http://user@proxy:3128" and proxy_password')
        return self

    @property
    def route(self) -> Route:
        """How to get there; reads the password of the proxy. Raises SecretError."""
        password = self.proxy_password.read() if self.proxy_password is not None else None
        return Route(self.proxy, password, self.poll_s, piece_bytes=int(self.piece_mib * (1 << 20)))

    @property
    def outbox(self) -> OutboxLimits:
        """How much may wait for it."""
        return OutboxLimits(self.outbox_messages, self.outbox_mib << 20)
