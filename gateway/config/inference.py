"""The gateway as a server of predictions."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from connectors.options import LocalFile
from gateway.config.section import Section, is_loopback


class Inference(Section):
    """On-line predictions by the Open Inference Protocol."""

    listen: str = Field(
        default="127.0.0.1:8080",
        pattern=r"^(\[[0-9A-Fa-f:]+\]|[^:\[\]]+):\d{1,5}$",
        description="host:port. Any host but loopback needs certificate and key.",
    )
    certificate: LocalFile | None = Field(default=None, description="PEM file with the server's certificate chain.")
    key: LocalFile | None = Field(default=None, description="PEM file with its private key, mode 0600.")
    stale_after_s: float | None = Field(
        default=None,
        gt=0,
        description="No prediction from a stored window whose newest row is older; default: any age.",
    )

    @property
    def host(self) -> str:
        """Host to listen on, without brackets."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """Port to listen on; 0 asks for a free one."""
        return int(self.listen.rpartition(":")[2])

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key come together: give both or neither")
        if self.certificate is None and not is_loopback(self.host):
            raise ValueError(f'"{self.listen}" is not loopback, so certificate and key are required')
        return self
