"""The gateway as a server of predictions: where it listens, who may ask for what, and how much at a time."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from common.options import Listening, LocalFile, is_loopback
from common.secret import Secret
from gateway.config.section import Section

Right = Literal["infer", "status", "metrics", "control"]
"""What a client may do: ask for predictions, see the state of the gateway, scrape its metrics, change something."""

EVERYTHING: tuple[Right, ...] = ("infer", "status", "metrics", "control")

Seconds = Annotated[float, Field(gt=0)]


class Client(Section):
    """One system that may ask this gateway, how it proves who it is, and what it may do."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.@-]+$", max_length=64, description="What logs and results call it.")
    secret: Secret | None = Field(
        default=None, description="It signs each request with this (HMAC-SM3); at least 32 characters."
    )
    certificate: str | None = Field(
        default=None, description="It shows a TLS certificate of this name: common name, or a DNS name among its SANs."
    )
    allow: tuple[Right, ...] = Field(default=("infer",), min_length=1, description="What it may do.")

    @model_validator(mode="after")
    def _provable(self) -> Self:
        if (self.secret is None) == (self.certificate is None):
            raise ValueError("say how it proves who it is: by a secret or by a certificate, one of the two")
        return self


class Inference(Section):
    """On-line predictions by the Open Inference Protocol."""

    listen: Listening = Field(
        default="127.0.0.1:8080",
        description="host:port. Any host but loopback needs TLS, and clients that prove who they are.",
    )
    certificate: LocalFile | None = Field(default=None, description="PEM file with the server's certificate chain.")
    key: LocalFile | None = Field(default=None, description="PEM file with its private key, mode 0600.")
    identity: bool = Field(
        default=False,
        description="Instead of certificate and key: serve with the identity of [trust], in its suite (gm: RFC 8998); every client then "
        "shows a certificate of that CA.",
    )
    client_ca: LocalFile | None = Field(
        default=None,
        description="PEM file of the CA whose certificates clients may show. Where no client is listed by certificate, "
        "all of this CA may infer.",
    )
    clients: tuple[Client, ...] = Field(default=(), alias="client", description="Who may ask.")
    open: tuple[Right, ...] | None = Field(
        default=None,
        description="What anybody may do without proof. Default: everything on loopback where no client and no client_ca is "
        "configured, otherwise nothing.",
    )
    clock_skew_s: Seconds = Field(default=30.0, le=300, description="How wrong the clock of a signing client may be.")
    stale_after_s: Seconds | None = Field(
        default=None, description="A stored window whose newest row is older is stale; default: no age is."
    )
    on_stale: Literal["refuse", "flag"] = Field(
        default="refuse", description="What happens to a prediction from a stale window; flag: the answer says so."
    )
    range_sigma: Seconds = Field(
        default=6.0,
        description="An input further from its mean in training than this many standard deviations is flagged as out of range.",
    )
    max_requests: int = Field(default=1024, ge=1, description="Requests at one time; more are answered with 429.")
    max_queue: int = Field(default=256, ge=1, description="Requests waiting for one model; more are answered with 429.")
    max_batch: int = Field(default=256, ge=1, description="Windows of waiting requests computed in one go.")
    threads: int = Field(default=2, ge=1, le=64, description="Threads for models and windows that take long.")
    timeout_s: Seconds = Field(default=30.0, description="How long a request may arrive and wait for its turn.")
    body_mib: int = Field(default=64, ge=1, description="Size of one request, MiB, unpacked; larger: 413.")
    memory_mib: int = Field(default=256, ge=1, description="Size of all requests at one time, MiB; more: 429.")

    @property
    def host(self) -> str:
        """Host to listen on, without brackets."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """Port to listen on; 0 asks for a free one."""
        return int(self.listen.rpartition(":")[2])

    @property
    def tls(self) -> bool:
        """Whether it speaks HTTPS."""
        return self.identity or self.certificate is not None

    @property
    def anybody(self) -> tuple[Right, ...]:
        """What needs no proof."""
        if self.open is not None:
            return self.open
        guarded = self.clients or self.client_ca is not None or self.identity
        return EVERYTHING if is_loopback(self.host) and not guarded else ()

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key come together: give both or neither")
        if self.identity and (self.certificate is not None or self.client_ca is not None):
            raise ValueError("identity takes the place of certificate, key and client_ca: give the one or the others")
        if self.client_ca is not None and not self.tls:
            raise ValueError("client_ca needs certificate and key: clients show certificates over TLS only")
        if not self.tls and not is_loopback(self.host):
            raise ValueError(f'"{self.listen}" is not loopback, so certificate and key are required')
        return self

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        twice = [name for name, count in Counter(client.name for client in self.clients).items() if count > 1]
        if twice:
            raise ValueError(f'two clients are called "{twice[0]}"')
        if self.client_ca is None and not self.identity:
            for client in self.clients:
                if client.certificate is not None:
                    raise ValueError(f'client "{client.name}" shows a certificate, so client_ca is required')
        proof = self.clients or self.client_ca is not None or self.identity
        if not is_loopback(self.host) and not proof and self.open is None:
            raise ValueError(
                f'"{self.listen}" is not loopback, so somebody has to be let in: list clients ([[inference.client]]), set client_ca, '
                'or say open = ["infer"] to answer anybody'
            )
        if self.body_mib > self.memory_mib:
            raise ValueError(f"body_mib = {self.body_mib} is more than memory_mib = {self.memory_mib} for all requests")
        return self
